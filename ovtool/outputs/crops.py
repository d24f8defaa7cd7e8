"""The masked crops of pairs, for trainings elsewhere: a folder of PNG files, or a WebDataset tar.

A crop holds what the CLIP saw, which is the tight box of the mask, squeezed into a square, the model's mean
colour outside the mask. The mask is its alpha channel, so that it need not be guessed from colours.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ovtool.errors import InputError, OutputExistsError
from ovtool.formats import atomic, coco, rle
from ovtool.formats import images as image_files
from ovtool.formats.parts import Record
from ovtool.methods import masked_crops

if TYPE_CHECKING:
    from ovtool.models.clip import Clip

LIST_FILE = "pairs.tsv"  # filepath and title, as open_clip reads it with --csv-separator tab


@dataclass(frozen=True)
class PairCrops:
    """Where crops go.

    In both, the crop of a noun is `IMAGE/NOUN-CATEGORY.png` with the image's file name as its folder.
    A folder has a list of them, `pairs.tsv`; a tar has a `.txt` with the noun and a `.json` beside
    each.

    Attributes:
        target: a folder, or a file that ends in `.tar`; None writes no crops.
    """

    target: Path | None = None

    @property
    def _is_tar(self) -> bool:
        return self.target is not None and self.target.suffix == ".tar"

    @property
    def _folder(self) -> Path:
        """Where single crops lie, for a tar until it is packed."""
        assert self.target is not None
        return Path(f"{self.target}.crops") if self._is_tar else self.target

    @property
    def places(self) -> dict[str, str]:
        """Where crops were written, for the outcome of a run."""
        return {} if self.target is None else {"crops": str(self.target)}

    def check(self, overwrite: bool, begun: bool) -> None:
        """Refuses a place that must not be written to.

        Args:
            overwrite: what is there may be replaced.
            begun: a run to the same output was cut off, and left the crops that a tar is packed from.

        Raises:
            OutputExistsError, InputError.
        """
        if self.target is None:
            return
        if self._is_tar:
            atomic.check_output(self.target, overwrite)
        is_filled = self._folder.is_dir() and any(self._folder.iterdir())
        if is_filled and not overwrite and not (begun and self._is_tar):
            raise OutputExistsError(
                f"{self._folder} holds files; empty it, choose another place, or give --overwrite"
            )

    def prepare(self, keep: bool) -> None:
        """Makes the folder.

        Args:
            keep: crops that are there belong to a run that goes on.

        Raises:
            InputError: the folder cannot be made.
        """
        if self.target is None:
            return
        if self._is_tar and not keep:
            shutil.rmtree(self._folder, ignore_errors=True)
        atomic.make_folder(self._folder)

    def write(
        self, clip: Clip, rgb: NDArray[np.uint8], record: Record, names: dict[int, str]
    ) -> None:
        """Writes the crops of an image's pairs.

        Args:
            clip: the model that they are cut for.
            rgb: the image, uint8 (H, W, 3).
            record: its pairs.
            names: the nouns by category id.
        """
        entries = record["annotations"]
        if self.target is None or not entries:
            return
        height, width = rgb.shape[:2]
        masks = np.stack([rle.decode(entry["segmentation"], height, width) for entry in entries])
        crops = draw(clip, rgb, masks)
        for crop, entry in zip(crops, entries, strict=True):
            noun = entry["category_id"]
            path = self._folder / _key(record["image"]["file_name"], noun, names[noun])
            atomic.make_folder(path.parent)
            image_files.save_png(
                path.with_name(path.name + ".png"), Image.fromarray(crop, "RGBA"), is_drawn=False
            )

    def finish(self, dataset: coco.Dataset) -> None:
        """Writes the list of a folder, or packs the tar. Raises InputError where crops are missing."""
        if self.target is None:
            return
        images = {image.id: image.file_name for image in dataset.images}
        names = {category.id: category.name for category in dataset.categories}
        keys = (
            (_key(images[mask.image_id], mask.category_id, names[mask.category_id]), mask)
            for mask in dataset.annotations
        )
        if self._is_tar:
            self._pack(keys, images, names)
            return
        rows = [f"{key}.png\t{names[mask.category_id]}\n" for key, mask in keys]
        atomic.write_text(self.target / LIST_FILE, "filepath\ttitle\n" + "".join(rows))

    def clean(self) -> None:
        """Removes what a tar was packed from."""
        if self._is_tar:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _pack(
        self,
        keys: Iterable[tuple[str, coco.Annotation]],
        images: dict[int, str],
        names: dict[int, str],
    ) -> None:
        assert self.target is not None
        with atomic.writing(self.target) as handle, tarfile.open(fileobj=handle, mode="w") as tar:
            for key, mask in keys:
                noun = names[mask.category_id]
                pair = {
                    "file_name": images[mask.image_id],
                    "noun": noun,
                    "score": mask.score,
                    **mask.extra,
                }
                content = {
                    "png": self._read(f"{key}.png"),
                    "txt": noun.encode(),
                    "json": atomic.canonical_json(pair).encode(),
                }
                for ending, data in content.items():
                    member = tarfile.TarInfo(f"{key}.{ending}")  # without time or owner
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise InputError(
                f"{self._folder / name} is missing; put the crops of all shards there, or mine the pairs again"
            ) from None


def _key(file_name: str, category_id: int, noun: str) -> str:
    """The path of a crop without its ending; a WebDataset's key ends at the first dot of its name."""
    return f"{file_name}/{re.sub(r'[^a-z0-9]+', '_', noun)[:60]}-{category_id}"


def draw(clip: Clip, rgb: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The masked crops of an image.

    Args:
        clip: The model that they are cut for.
        rgb: The image, uint8 (H, W, 3).
        masks: bool (N, H, W), none of them empty.

    Returns:
        uint8 (N, S, S, 4), S the side that the model was trained on.
    """
    mean = torch.tensor(clip.mean).view(3, 1, 1) * 255
    pixels = torch.from_numpy(rgb).permute(2, 0, 1).float() - mean
    cut, squeezed = masked_crops.masked_crops(pixels, torch.from_numpy(masks), clip.image_size)
    colours = (cut + mean).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    alpha = squeezed.byte()[..., None] * 255
    crops: NDArray[np.uint8] = torch.cat([colours, alpha], dim=3).numpy()
    return crops
