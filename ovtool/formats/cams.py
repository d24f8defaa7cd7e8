"""Class activation maps in a safetensors file of kind `cams`.

One float16 tensor `cam/<image_id>` of shape (K, h, w) in [0, 1] an image, on the grid of the network that
made it, its K maps in the order of the image's `category_ids`: the classes that the image is labelled
with, and no others. The header's settings hold `images`, `categories` and `method`, the settings of the
run. `model` and `fingerprint` name the CLIP that made the maps, and are absent where none did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ovtool.errors import InputError, MismatchError
from ovtool.formats import coco, coco_checks, parts, tensors
from ovtool.formats.labelled import LabelledImages

KIND = "cams"
_FIELDS = ("id", "file_name", "height", "width", "category_ids")


@dataclass(frozen=True, slots=True)
class CamImage:
    """An image with maps: `file_name` relative with forward slashes, its size in pixels, and the ids of
    its categories, one a map."""

    id: int
    file_name: str
    height: int
    width: int
    category_ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Cams:
    """The maps of a set of images.

    maps: image id to float (K, h, w) in [0, 1]; those of a file are read whenever they are asked for. settings: how
    they were made (`method`, ...).
    model, fingerprint: the CLIP that made them, None where none did. failures: images without maps, each
    with `file_name` and `reason`.
    """

    images: tuple[CamImage, ...]
    categories: tuple[coco.Category, ...]
    maps: Mapping[int, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    fingerprint: str | None = None
    failures: tuple[Mapping[str, str], ...] = ()

    def of(self, image_id: int) -> Tensor:
        """The maps of an image, float32 (K, h, w) in [0, 1]."""
        return self.maps[image_id].float()

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of images, categories and maps, whatever made them."""
        stored = tensors.Anew({str(key): partial(_half, self.maps, key) for key in self.maps})
        return parts.settings_digest(
            {
                "images": [asdict(image) for image in self.images],
                "categories": [coco.category_entry(category) for category in self.categories],
                "maps": tensors.fingerprint(stored),
            }
        )


def write(
    path: Path,
    images: Sequence[CamImage],
    categories: Sequence[coco.Category],
    maps: Mapping[int, Tensor],
    settings: Mapping[str, Any],
    *,
    model: str | None = None,
    fingerprint: str | None = None,
    failures: Sequence[Mapping[str, str]] = (),
    asked: str | None = None,
) -> Cams:
    """Writes maps atomically, as float16, and returns them as they are read again.

    maps: image id to (K, h, w) in [0, 1]. settings: what shaped them, with the `method`. asked: the digest
    of the request, for `--update`.

    Raises InputError where the file cannot be written, or where something in it is wrong: an id given
    twice, a map that is missing, of another number than the image's categories, not finite or not in
    [0, 1].
    """
    stored = tensors.Anew({image_id: partial(_half, maps, image_id) for image_id in maps})
    cams = Cams(
        tuple(images),
        tuple(categories),
        stored,
        dict(settings),
        model,
        fingerprint,
        tuple(failures),
    )
    _check(cams, str(path))
    header: dict[str, Any] = {
        "kind": KIND,
        "settings": {
            "method": cams.settings,
            "images": [asdict(image) for image in cams.images],
            "categories": [coco.category_entry(category) for category in cams.categories],
            "failures": [dict(failure) for failure in cams.failures],
        },
    }
    if asked is not None:
        header["settings"]["asked"] = asked
    if fingerprint is not None:
        header |= {"model": model, "fingerprint": fingerprint}
    named = tensors.Anew({f"cam/{key}": read for key, read in stored.read.items()})
    tensors.save(Path(path), named, header)
    return cams


def _half(maps: Mapping[int, Tensor], image_id: int) -> Tensor:
    return maps[image_id].detach().cpu().half()


def read(path: Path) -> Cams:
    """The maps in a file, checked in full, each of which is read anew whenever it is asked for.

    Raises InputError for a file that is broken or whose parts do not fit, MismatchError for one of another
    kind.
    """
    header, stored = tensors.stored(Path(path), KIND)
    tensors.check_settings(header, Path(path))
    settings = header["settings"]
    images = tuple(
        CamImage(**{**entry, "category_ids": tuple(entry["category_ids"])})
        for entry in ({name: entry[name] for name in _FIELDS} for entry in settings["images"])
    )
    categories = tuple(coco.parse_categories(settings, str(path)))
    failures, method = tuple(settings.get("failures") or ()), dict(settings["method"])
    try:
        maps = tensors.Anew(
            {int(name.removeprefix("cam/")): one for name, one in stored.read.items()}
        )
    except ValueError:
        raise InputError(f"{path} does not say what its maps are of; make it again") from None
    model, fingerprint = header.get("model"), header.get("fingerprint")
    cams = Cams(images, categories, maps, method, model, fingerprint, failures)
    _check(cams, str(path))
    return cams


def as_labelled(cams: Cams, source: str) -> LabelledImages:
    """The images and classes of maps, to be matched with those of other files; they have no label maps."""

    def refuse(image: str) -> Any:
        raise InputError(f"{source} holds activation maps, and no classes of pixels")

    return LabelledImages(
        source,
        classes=tuple((category.name, *category.synonyms) for category in cams.categories),
        names=tuple(image.file_name for image in cams.images),
        decode=refuse,
    )


def check_images(cams: Cams, sizes: Mapping[str, tuple[int, int]], where: str) -> None:
    """Refuses maps of other images, or of images of another size, than those at hand.

    sizes: file name to (height, width) of the images, all of them or some more.

    Raises MismatchError, naming the first.
    """
    for image in cams.images:
        if image.file_name not in sizes:
            raise MismatchError(
                f"{where} has maps of {image.file_name}, which is none of the images here; give the "
                "images that the maps were made of"
            )
        height, width = sizes[image.file_name]
        if (height, width) != (image.height, image.width):
            raise MismatchError(
                f"{where} has maps of {image.file_name} at {image.width} x {image.height} pixels, but the "
                f"image here has {width} x {height}; give the images that the maps were made of"
            )


def _check(cams: Cams, where: str) -> None:
    known = {category.id for category in cams.categories}
    seen: set[int] = set()
    for image in cams.images:
        place = f"{where}: the maps of {image.file_name}"
        if image.id in seen:
            raise InputError(f"{where}: two images have the id {image.id}; make it again")
        seen.add(image.id)
        coco_checks.check_file_name(image.file_name, where)
        if unknown := set(image.category_ids) - known:
            raise InputError(f"{place}: no category has the id {min(unknown)}; make it again")
        if image.id not in cams.maps:
            raise InputError(f"{place} are missing; make it again")
        own = cams.maps[image.id]
        if own.ndim != 3 or len(own) != len(image.category_ids) or 0 in own.shape[1:]:
            raise InputError(
                f"{place} have the shape {list(own.shape)} for {len(image.category_ids)} categories; "
                "make it again"
            )
        if not own.isfinite().all():
            raise InputError(f"{place} hold numbers that are not finite (NaN); make it again")
        if own.numel() and (own.min() < 0 or own.max() > 1):
            raise InputError(f"{place} leave the range from 0 to 1; make it again")
    if extra := set(cams.maps) - seen:
        raise InputError(f"{where}: the map cam/{min(extra)} belongs to no image; make it again")
