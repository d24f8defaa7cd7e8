"""`refine`: class activation maps to better ones, or to pseudo masks, step by step.

This is the story of the command: the maps and their images are read, the step `prompts` trains a generator
whose maps take the place of those that were read (`cams.prompt_refinement`), the other steps go over the
pictures one by one (`cams.refine_steps`), and what they leave is written as maps or as pseudo masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ovtool.batches import maps as map_batches
from ovtool.cams import prompt_refinement, refine_steps
from ovtool.cams.prompt_refinement import Request
from ovtool.cams.refine_steps import Context, StepOptions
from ovtool.errors import InputError, UsageError
from ovtool.formats import atomic, coco, parts, rle
from ovtool.formats import cams as maps_file
from ovtool.formats.cams import CamImage, Cams
from ovtool.formats.images import ImageItem
from ovtool.methods import pseudo_masks
from ovtool.methods.pseudo_masks import Background
from ovtool.outputs.drawn_files import DrawnFiles
from ovtool.proposers import proposal_sources
from ovtool.proposers.proposal_sources import ProposalSource
from ovtool.runtime import device as devices
from ovtool.runtime import engine, runs
from ovtool.runtime.runs import Outcome, Run
from ovtool.settings.segment import Drawn

if TYPE_CHECKING:  # it imports open_clip, for which bad arguments need not wait
    from ovtool.models.clip import Clip

BACKGROUND = "background"
CONFIDENCE = 0.95  # after a CRF, CLIP-ES's; nothing is in doubt without one
Rgb = NDArray[np.uint8]
MapsOf = Callable[[CamImage, Tensor], Tensor]  # a picture uint8 (H, W, 3) to its maps (K, h, w)


@dataclass(frozen=True)
class Masking:
    """How maps become pseudo masks.

    background: its score. confidence: the least share of a pixel's scores that its best one must have.
    """

    background: Background
    confidence: float

    @classmethod
    def of(cls, spec: str | None, confidence: float | None, steps: Sequence[str]) -> Masking:
        """From `--background-score` and `--confidence`. Without them: after `crf`, whose maps are
        probabilities, the background has the rest and 0.95 is asked for; else Otsu's threshold parts the
        maps of each picture, and no pixel is in doubt. Raises UsageError."""
        has_crf = bool(steps) and steps[-1] == "crf"
        found = Background("rest") if has_crf else Background()
        if spec is not None:
            found = parse_background(spec)
        if confidence is None:
            confidence = CONFIDENCE if has_crf else 0.0
        return cls(found, confidence)


def parse_background(spec: str) -> Background:
    """`otsu`, `rest`, `power:A` or `constant:T`. Raises UsageError for anything else."""
    kind, _, number = spec.partition(":")
    takes_number = kind in ("power", "constant")
    try:
        value = float(number) if takes_number else 1.0
    except ValueError:
        value = -1.0
    wrong = kind not in pseudo_masks.KINDS or (number and not takes_number)
    if wrong or not 0 <= value < 1000 or (kind == "constant" and value > 1):
        raise UsageError(
            f"--background-score {spec}: give otsu, rest, power:A (such as power:1) or constant:T with T "
            "from 0 to 1"
        )
    return Background(kind, value)


@dataclass(frozen=True, eq=False)
class Refiner:
    """The maps of one picture after another.

    maps_of: the maps that the steps begin with. regions: proposals of a picture, for the step `sam`.
    """

    maps_of: MapsOf
    steps: Sequence[str]
    context: Context
    regions: ProposalSource | None = None

    def __call__(self, item: ImageItem, image: CamImage, rgb: Rgb) -> Tensor:
        """The refined maps of a picture, float32 (K, h, w) in [0, 1], on the CPU.

        Raises InputError where a step leaves numbers that are not finite.
        """
        picture = torch.from_numpy(rgb)
        context = self.context
        if self.regions is not None:
            found = self.regions.find(item, rgb)
            masks = np.stack([one[found.superpixels] for one in found.members] or [rgb[..., 0] < 0])
            context = Context(context.clip, torch.from_numpy(masks), context.options)
        maps = refine_steps.run(picture, self.maps_of(image, picture), self.steps, context)
        if not maps.isfinite().all():
            raise InputError(
                f"{item.name}: its maps are not finite after {', '.join(self.steps)}: leave out a step"
            )
        return maps.cpu().float().clamp(0, 1)


def run(
    cams: Path,
    *,
    images: Path | None = None,
    steps: str | Sequence[str] = (),
    out: str | None = None,
    model: str | None = None,
    device: str | None = None,
    prompts: Request | None = None,
    save_generator: Path | None = None,
    options: Mapping[str, Any] | None = None,
    proposals_file: Path | None = None,
    background_score: str | None = None,
    confidence: float | None = None,
    label_maps: Path | None = None,
    overlays: Path | None = None,
    how: Run | None = None,
) -> Outcome:
    """Refines maps and writes maps (`out` ends in .safetensors) or pseudo masks (.json): a COCO JSON with a
    mask for each class and image, `background` among them; what no mask covers is in doubt.

    images: the folder of the images, by default the one that the maps are in.
    steps: names joined by commas, in their order: prompts, affinity, walk, pamr, crf, sam; none for pseudo
        masks of the maps as they are.
    model: the CLIP of `prompts`, `affinity` and `walk`; None is the one that made the maps.
    prompts: what shapes the step of that name. save_generator: where its generator stays.
    options: fields of `refine_steps.StepOptions`, but for `background`.
    background_score, confidence: see `Masking.of`. label_maps, overlays: folders for pictures.

    Raises UsageError, InputError, OutputExistsError, ModelError, MismatchError (images, prompts, generator
    or proposals that do not belong to the maps), TrainingError; an image that cannot be read is a failure,
    listed in the outcome and in the output, unless `how.strict`.
    """
    how = how or Run()
    names = _names(steps)
    place = devices.choose(device)
    target = out or f"{Path(cams).stem.removesuffix('.cams')}.pseudo.json"
    is_maps = target.endswith(".safetensors")
    masking = Masking.of(background_score, confidence, names)
    step_options = StepOptions(background=_against(background_score), **(options or {}))
    _check_request(names, step_options, target, proposals_file, prompts, label_maps or overlays)
    found = maps_file.read(cams)
    items = map_batches.items_of(found, images or Path(cams).resolve().parent, str(cams))
    _check_maps(found, str(cams))
    categories = found.categories if is_maps else with_background(found.categories)
    drawings = DrawnFiles(
        [each.name for each in categories], Drawn(label_maps=label_maps, overlays=overlays)
    )
    runs.check_place(target, how)
    drawings.check(items, how.overwrite or (how.resume and runs.is_begun(target)))
    kept = save_generator or Path(f"{target}.generator.safetensors")
    if "prompts" in names:
        _check_generator(kept, target, how)
    clip = None
    if "prompts" in names or refine_steps.needs_clip(names, step_options):
        from ovtool.models import clip as door

        clip = door.load(model, place, torch.float32, found.model)
    regions = None if proposals_file is None else proposal_sources.from_file(proposals_file, items)
    shown: dict[str, Any] = {"steps": list(names), "cams": found.digest, **asdict(step_options)}
    training = None
    if "prompts" in names:
        assert clip is not None
        training = prompt_refinement.Refinement.of(
            clip, found, items, str(cams), prompts or Request(), how.progress
        )
        shown["prompts"] = {**training.shown}
    if not is_maps:
        shown["masking"] = asdict(masking)
    if regions is not None:
        shown["proposals"] = regions.digest
    if how.dry_run:
        return runs.planned(items, categories, target)
    maps_of: MapsOf = lambda image, rgb: found.of(image.id)  # noqa: E731
    if training is not None:
        generator = training.trained(kept, how.resume, how.overwrite)
        maps_of = _maps_of_generator(generator)
    drawings.prepare()
    refiner = Refiner(
        maps_of,
        [one for one in names if one != "prompts"],
        Context(clip, None, step_options),
        regions,
    )
    work = Work(found, refiner, None if is_maps else masking, drawings)
    made_with = None if clip is None else {"name": clip.name, "fingerprint": clip.fingerprint}

    def write(dataset: coco.Dataset, tensors_: Sequence[Mapping[str, Tensor]]) -> None:
        _write_maps(Path(target), found, dataset, tensors_, shown, clip)

    def check(dataset: coco.Dataset, _: Sequence[Mapping[str, Tensor]]) -> None:
        if not is_maps and not dataset.annotations:
            raise InputError(
                f"no pixel of any image is certain to {masking.confidence:g}, so all would be ignored: give a "
                "lower --confidence"
            )

    outcome = runs.map_images(items, work.part_output, runs.Job(info=runs.provenance("refine", shown, made_with), categories=categories, out=target, device=place, description="refining", beside=drawings.places_from(target), finish=check, write=write if is_maps else None,), how, how.progress,)  # fmt: skip
    places = dict(drawings.places)
    if training is not None and save_generator is None:
        kept.unlink(missing_ok=True)
        kept.with_suffix(".png").unlink(missing_ok=True)
    elif training is not None:
        places |= {"generator": str(kept), "curve": str(kept.with_suffix(".png"))}
    return Outcome(outcome.dataset, outcome.out, outcome.failures, pictures=places)


@dataclass(frozen=True, eq=False)
class Work:
    """What is done with each picture: refined, then kept as maps (no `masking`) or as pseudo masks."""

    cams: Cams
    refiner: Refiner
    masking: Masking | None
    drawings: DrawnFiles
    _by_name: Mapping[str, CamImage] = field(init=False)

    def __post_init__(self) -> None:
        by_name = {image.file_name: image for image in self.cams.images}
        object.__setattr__(self, "_by_name", by_name)

    def part_output(self, items: Sequence[ImageItem]) -> engine.PartOutput:
        """The records of a part, with its maps as tensors where maps are wanted."""
        kept: dict[str, Tensor] = {}

        def one(item: ImageItem, rgb: Rgb) -> parts.Record:
            image = self._by_name[item.name]
            if rgb.shape[:2] != (image.height, image.width):
                return parts.failure_record(
                    item.name, f"{item.name} has another size than its maps"
                )
            maps = self.refiner(item, image, rgb)
            if self.masking is None:
                kept[f"cam/{image.id}"] = maps.half()
                return parts.image_record(item.name, *rgb.shape[:2], [])
            return self._masks(item, image, rgb, maps)

        def records() -> Iterator[parts.Record]:
            yield from runs.picture_records(items, one)

        return engine.PartOutput(records(), tensors=kept)

    def _masks(self, item: ImageItem, image: CamImage, rgb: Rgb, maps: Tensor) -> parts.Record:
        """The pseudo masks of a picture; category 1 is the background."""
        assert self.masking is not None
        size = rgb.shape[:2]
        if len(maps) and maps.shape[1:] != size:
            maps = interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
        elif not len(maps):
            maps = maps.new_zeros(0, *size)
        found, share = pseudo_masks.labels(maps, self.masking.background, self.masking.confidence)
        place = {category.id: k for k, category in enumerate(self.cams.categories, start=1)}
        # the background, then the classes: places in the list of categories; the last stands for doubt
        index = torch.tensor([0, *(place[one] for one in image.category_ids), -1])
        labels = index[found].numpy().astype(np.int32)
        entries, scores = [], {}
        for label, mask in sorted(rle.encode_label_map(labels, range(len(place) + 1)).items()):
            scores[label] = float(share.numpy()[labels == label].mean())
            score = round(scores[label], 6)
            entries.append({"category_id": label + 1, "segmentation": mask, "score": score})
        self.drawings.write(item, rgb, labels, scores)
        return parts.image_record(item.name, *size, entries)


def with_background(categories: Sequence[coco.Category]) -> tuple[coco.Category, ...]:
    """The categories of pseudo masks: `background` with id 1, then the classes in their order. Raises
    UsageError where a class has that name already."""
    if any(each.name.casefold() == BACKGROUND for each in categories):
        raise UsageError(
            "a class of the maps is called background, which pseudo masks have of their own: rename it"
        )
    own = [
        coco.Category(number, each.name, each.supercategory, each.synonyms)
        for number, each in enumerate(categories, start=2)
    ]
    return (coco.Category(1, BACKGROUND), *own)


def _names(steps: str | Sequence[str]) -> tuple[str, ...]:
    listed = steps.split(",") if isinstance(steps, str) else steps
    return tuple(name.strip() for name in listed if name.strip())


def _against(spec: str | None) -> Background:
    """What the CRF and `sam` set against the maps: never the rest, which only probabilities leave."""
    found = Background() if spec is None else parse_background(spec)
    return Background() if found.kind == "rest" else found


def _check_request(
    names: Sequence[str], options: StepOptions, target: str, proposals_file: Path | None,
    prompts: Request | None, pictures: Path | None,
) -> None:  # fmt: skip
    """Raises UsageError for what cannot be meant, before anything is read."""
    if names:
        refine_steps.check_order(names, options)
    if not target.endswith((".json", ".safetensors")):
        raise UsageError(f"-o {target}: end it in .json for pseudo masks, or .safetensors for maps")
    if target.endswith(".safetensors") and not names:
        raise UsageError(f"without --steps the maps stay as they are: -o {target} would be a copy")
    if target.endswith(".safetensors") and pictures is not None:
        raise UsageError(f"pictures are drawn of pseudo masks: give -o x.json in place of {target}")
    if "sam" in names and proposals_file is None:
        raise UsageError("the step sam needs proposals: give --proposals FILE")
    if proposals_file is not None and "sam" not in names:
        raise UsageError("--proposals is read by the step sam: add it to --steps, or leave it out")
    if prompts is not None and "prompts" not in names and (prompts.prompts or prompts.generator):
        raise UsageError(
            "--background-prompts and --generator belong to the step prompts: add it to --steps, or leave "
            "them out"
        )


def _check_generator(kept: Path, target: str, how: Run) -> None:
    """Refuse places that the generator and its curve must not be written to, before any work is done.

    A run that goes on may find its own generator there, which `Refinement.trained` looks into.

    Raises UsageError, OutputExistsError, InputError.
    """
    curve = kept.with_suffix(".png")
    atomic.check_distinct((Path(target), kept, curve))
    goes_on = how.resume and kept.exists()
    for path in (kept, curve):
        atomic.check_output(path, how.overwrite or goes_on)


def _check_maps(found: Cams, source: str) -> None:
    """Refuses maps that say nothing. Raises InputError."""
    count = sum(len(one) for one in found.maps.values())
    if not count:
        raise InputError(f"{source} has no maps: no image in it has a class")
    if map_batches.constant_maps(found) == count:
        raise InputError(
            f"{source}: every map has one value everywhere, so none says where its class is: make the maps "
            "again"
        )


def _maps_of_generator(generator: Any) -> MapsOf:
    """The maps of a trained generator, over the picture and its mirror image."""
    from ovtool.cams import sources as cam_sources

    place = {category.id: k for k, category in enumerate(generator.categories)}
    source, views = cam_sources.generator(generator), cam_sources.Views((1.0,), True)

    def maps_of(image: CamImage, rgb: Tensor) -> Tensor:
        chosen = [place[one] for one in image.category_ids]
        return cam_sources.maps_of(source, rgb, chosen, views).cpu()

    return maps_of


def _write_maps(
    target: Path, found: Cams, dataset: coco.Dataset, tensors_: Sequence[Mapping[str, Tensor]],
    shown: Mapping[str, Any], clip: Clip | None,
) -> None:  # fmt: skip
    """Writes refined maps; images that failed are listed in the file."""
    maps = {
        int(name.removeprefix("cam/")): value for part in tensors_ for name, value in part.items()
    }
    images = [image for image in found.images if image.id in maps]
    model, fingerprint = found.model, found.fingerprint
    if clip is not None:
        model, fingerprint = clip.name, clip.fingerprint
    maps_file.write(
        target, images, found.categories, maps, {**found.settings, "refined": dict(shown)},
        model=model, fingerprint=fingerprint,
        failures=[*found.failures, *dataset.info["ovtool"]["failures"]],
    )  # fmt: skip
