"""What `semples.py` makes on the way: maps, prompts, refinements, masks and segmenters in a folder.

Nothing that is there is made again, and every training goes on where it was cut off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import semples_scores as scores
import torch
from cells import Cells, Figures

from ovtool.datasets import collage_files, registry
from ovtool.datasets.nouns import GROUNDS
from ovtool.formats import coco
from ovtool.settings import segment as segment_settings
from ovtool.settings import shared
from ovtool.settings.cam import ClassifierMaps, Gradcam, LabelMatching
from ovtool.settings.prompts import BackgroundPrompts
from ovtool.settings.propose import Propose
from ovtool.settings.refine import Apply, PromptStep, PseudoMasks
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.settings.shared import Compute, Run
from ovtool.stages import cam, propose, refine, segment, train_segmenter, tune_prompts
from ovtool.training.run import Trained

GO_ON = Run(resume=True, overwrite=True)
MODEL = "tiny"
KINDS = {"gradcam": Gradcam, "matching": LabelMatching, "classifier": ClassifierMaps}
HOSTS: Mapping[str, str] = {
    "CNN classifier": "timm:resnet10t",
    "transformer classifier": "timm:vit_tiny_patch16_224",
    "proposals": "",  # votes of superpixel proposals in the maps of gradcam
}
# lambda_T of each push; for that of the foreground, to which no published weight is known, 0.2 and 0.5 were
# looked at
PUSH_WEIGHTS = {"none": 0.0, "text": 0.02, "foreground": 0.5}
BEST = "foreground"  # whose prompts the chain and the hosts take
SIMILARITY = "shifted"  # of the prompts: the tiny CLIP's cosines with other texts fall below 0


@dataclass(frozen=True)
class Budget:
    """How long each training is; the rest are the stages' defaults.

    steps and batch sizes of matching, of the prompts and of the segmenter. fit_epochs: of a head to the maps
    of a host. classifier_epochs, classifier_side: of the hosts. crf: the preset for pseudo masks.
    """

    match_steps: int = 40
    match_batch: int = 8
    prompt_steps: int = 300
    prompt_batch: int = 64
    fit_epochs: float = 2.0
    classifier_epochs: float = 8.0
    classifier_side: int = 128
    segmenter: str = "clip"
    segmenter_steps: int = 800
    segmenter_batch: int = 8
    crf: str = "irn"


@dataclass
class Bench(Cells):
    """The folder that everything lies in, and the figures that are known."""

    images: Mapping[str, int]
    budget: Budget
    scenes_seed: int = 7

    def data(self, split: str) -> registry.DataSet:
        """A split of the preset, made where it is not there."""
        folder = self.work / split
        files = registry.collage_in(folder, split)
        if not registry.is_made(files):
            spec = collage_files.CollageSpec(
                split, self.images[split], self.scenes_seed, 256, "cooccur"
            )
            collage_files.make(spec, folder)
        return files

    def file(self, name: str, seed: int, ending: str = "safetensors") -> Path:
        """The place of something made from a seed."""
        return self.work / f"{name}.{seed}.{ending}"

    # --- maps ---------------------------------------------------------------------------------------
    def maps(self, method: str, seed: int, split: str = "train", **options: object) -> Path:
        """Maps of a split by a method of `cam`; what follows its colon is but a name."""
        out, data = self.file(f"{method.replace(':', '-')}.{split}", seed), self.data(split)
        if not out.exists():
            kind = KINDS[method.split(":")[0]]
            seeded = {"seed": seed} if issubclass(kind, shared.Training) else {}
            cam.run(
                data.instances,
                kind(**options, **seeded),
                images=data.images,
                compute=Compute(model=MODEL if kind is not ClassifierMaps else None),
                out=str(out),
                run=GO_ON,
            )
        return out

    def matching(self, start: str, seed: int, steps: int | None = None) -> tuple[Path, Path]:
        """Maps of `train` by a generator that began at `start` and was matched, and that generator. steps:
        0 for the start as it is."""
        name = f"{start}-begun" if steps == 0 else start
        generator = self.file(f"matching-{name}.generator", seed)
        if not generator.exists():
            self.file(f"matching-{name}.train", seed).unlink(missing_ok=True)
        results = self.maps(
            f"matching:{name}", seed, save_generator=generator, begin=start,
            steps=self.budget.match_steps if steps is None else steps,
            batch_size=self.budget.match_batch,
        )  # fmt: skip
        return results, generator

    def by_generator(self, generator: Path, split: str = "val") -> Path:
        """Maps of a split by a trained generator, which takes their labels alone."""
        out, data = generator.with_suffix(f".{split}.safetensors"), self.data(split)
        if not out.exists():
            cam.run(
                data.instances,
                LabelMatching(generator=str(generator)),
                images=data.images,
                compute=Compute(model=MODEL),
                out=str(out),
                run=GO_ON,
            )
        return out

    # --- prompts ------------------------------------------------------------------------------------
    def prompts(self, push: str, seed: int) -> Path:
        """Background prompts on the maps of gradcam; `list` is a list of words, not learned."""
        out = self.file(f"prompts-{push}", seed)
        if push == "list":
            return out if out.exists() else self._word_list(out)
        maps = self.maps("gradcam", 0)

        def tuned() -> Figures:
            results = self._tuned(maps, push, seed, out)
            return scores.nearest_hits(
                {name: list(one) for name, one in results.notes["nearest"].items()}
            )

        if not out.exists():
            self.cells.pop(f"nearest/{push}/{seed}", None)
        self.cell(f"nearest/{push}/{seed}", tuned)
        return out

    def _tuned(self, maps: Path, push: str, seed: int, out: Path) -> Trained:
        return tune_prompts.run(
            maps,
            BackgroundPrompts(
                words=scores.write_words(self.work / "words.txt"),
                push=push,
                push_weight=PUSH_WEIGHTS[push],
                similarity=SIMILARITY,
                crop_scale=1.0,
                steps=self.budget.prompt_steps,
                batch_size=self.budget.prompt_batch,
                seed=seed,
            ),
            images=self.data("train").images,
            out=out,
            compute=shared.Compute(model=MODEL),
            run=shared.Run(resume=True, overwrite=True),
        )

    def _word_list(self, out: Path) -> Path:
        """For every class the mean of all grounds' texts: the one list that a person would write."""
        from ovtool.models import background_prompts, text
        from ovtool.models import clip as clips

        clip = clips.load(MODEL)
        words = text.encode_texts(clip, [f"a photo of {ground}." for ground in GROUNDS])
        categories = coco.read(self.data("train").instances).categories
        mean = torch.nn.functional.normalize(words.mean(0), dim=0).expand(len(categories), -1)
        nothing = torch.zeros(len(categories), 0, 1)
        background_prompts.save(out, clip, categories, nothing, mean, {"words": list(GROUNDS)})
        return out

    def refined(self, start: str, push: str, seed: int) -> tuple[Path, Path]:
        """Maps of `train` by a generator that began again and learned with the prompts, and it."""
        name = f"refined-{start}-{push}"
        out, generator = self.file(f"{name}.train", seed), self.file(f"{name}.generator", seed)
        if not out.exists() or not generator.exists():
            maps, begun = self.matching(start, seed)
            self._prompts_step(maps, out, generator, self.prompts(push, seed), seed, begun)
        return out, generator

    def _prompts_step(
        self,
        maps: Path,
        out: Path,
        generator: Path,
        prompts: Path | None,
        seed: int,
        begun: Path | None,
        steps: int | None = None,
    ) -> None:
        """begun: the generator that begins again; None fits a new one to the maps first."""
        budget = self.budget
        refine.run(
            maps,
            Apply(apply=("prompts",)),
            PromptStep(
                background_prompts=prompts,
                generator=begun,
                refine_weight=0.0 if prompts is None else None,
                fit="yes" if begun is None else "no",
                fit_epochs=budget.fit_epochs,
                seed=seed,
                batch_size=budget.match_batch,
                steps=budget.match_steps if steps is None else steps,
                save_generator=generator,
            ),
            images=self.data("train").images,
            out=str(out),
            compute=Compute(model=MODEL),
            run=GO_ON,
        )

    # --- masks and segmenters -------------------------------------------------------------------------
    def pseudo(
        self, maps: Path, split: str, name: str, seed: int, confidence: float | None
    ) -> Path:
        """Pseudo masks after the CRF; confidence 0 leaves no pixel in doubt, as for measuring."""
        out = self.file(f"{name}.{split}.pseudo", seed, "json")
        if not out.exists():
            refine.run(
                maps,
                Apply(apply=("crf",), crf=self.budget.crf),  # type: ignore[arg-type]
                masks=PseudoMasks(confidence=confidence),
                images=self.data(split).images,
                out=str(out),
                run=GO_ON,
            )
        return out

    def segmenter(self, labels: Path, name: str, seed: int, with_background: bool) -> Figures:
        """A segmenter on labels of `train`, measured on `val`: at one scale, and at three, mirrored and
        with the CRF."""
        train, val = self.data("train"), self.data("val")
        file = self.file(f"{name}.segmenter", seed)
        if not file.exists():
            train_segmenter.run(
                labels,
                SegmenterTraining(
                    with_background=with_background,
                    architecture=self.budget.segmenter,
                    steps=self.budget.segmenter_steps,
                    batch_size=self.budget.segmenter_batch,
                    validate_every=0,
                    seed=seed,
                ),
                images=train.images,
                out=file,
                compute=Compute(model=MODEL if self.budget.segmenter == "clip" else None),
                run=shared.Run(resume=True, overwrite=True),
            )
        figures = {}
        views = {
            "plain": segment_settings.Trained(segmenter=file),
            "miou": segment_settings.Trained(
                segmenter=file, scales=(0.75, 1, 1.25), flip=True, crf="pydensecrf"
            ),
        }
        for key, method in views.items():
            out = self.file(f"{name}.{key}.segments", seed, "json")
            segment.run(val.images, method=method, out=out, run=Run(overwrite=True))
            figures[key] = scores.masks(out, val)["miou"]
        return figures

    # --- hosts ------------------------------------------------------------------------------------------
    def host(self, title: str, seed: int) -> Path:
        """The maps of `train` that a host gives."""
        arch = HOSTS[title]
        if arch:
            name = f"classifier:{arch.removeprefix('timm:')}"
            return self.maps(
                name, seed, arch=arch, epochs=self.budget.classifier_epochs,
                short_side=self.budget.classifier_side,
            )  # fmt: skip
        out, data = self.file("proposals.train", seed), self.data("train")
        proposals = self.work / "train.proposals.json"
        if not proposals.exists():
            propose.run(
                data.images,
                Propose(proposer="regions"),
                out=proposals,
                run=shared.Run(resume=True, overwrite=True),
                compute=shared.Compute(model=MODEL),
            )
        if not out.exists():
            refine.run(
                self.maps("gradcam", 0),
                Apply(apply=("sam",), proposals=proposals),
                images=data.images,
                out=str(out),
                run=GO_ON,
            )
        return out

    def maps_on_host(self, title: str, kind: str, seed: int) -> Path:
        """The maps of a generator's head that was fitted to a host's maps (`fit`), then learned by `match`, or
        by `refine` with the prompts of this host."""
        maps, short = self.host(title, seed), title.split()[0].lower()
        out = self.file(f"{short}-{kind}.train", seed)
        prompts = self.file(f"{short}.prompts", seed)
        if kind == "refine" and not prompts.exists():
            self._tuned(maps, BEST, seed, prompts)
        if not out.exists():
            self._prompts_step(
                maps, out, self.file(f"{short}-{kind}.generator", seed),
                prompts if kind == "refine" else None, seed, None,
                steps=0 if kind == "fit" else None,
            )  # fmt: skip
        return out
