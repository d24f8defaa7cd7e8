"""The pictures that `segment` writes beside its JSON: label maps, overlays, heat maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ovtool.errors import OutputExistsError
from ovtool.formats import atomic, label_maps, overlays
from ovtool.formats import images as pictures
from ovtool.formats.images import ImageItem
from ovtool.methods.class_maps import Rows, probability_blocks


@dataclass(frozen=True)
class Drawings:
    """Where pictures go; None writes none of that kind.

    names: the name of every class of the run.
    label_maps, overlays, heatmaps: folders, with the images' own relative names below them.
    overlay_file: the one overlay of a run over one image.
    """

    names: Sequence[str]
    label_maps: Path | None = None
    overlays: Path | None = None
    heatmaps: Path | None = None
    overlay_file: Path | None = None

    def check(self, overwrite: bool) -> None:
        """Raises OutputExistsError where a folder holds something already, or the overlay is there."""
        for folder in self._folders():
            if folder.is_dir() and any(folder.iterdir()) and not overwrite:
                raise OutputExistsError(
                    f"{folder} is not empty: choose another folder, or give --overwrite"
                )
        if self.overlay_file is not None:
            atomic.check_output(self.overlay_file, overwrite)

    def prepare(self) -> None:
        """Makes the folders, and writes the names of the classes beside the label maps."""
        for folder in self._folders():
            atomic.make_folder(folder)
        if self.label_maps is not None:
            label_maps.write_classes(self.label_maps / "classes.txt", self.names)

    def _folders(self) -> list[Path]:
        return [f for f in (self.label_maps, self.overlays, self.heatmaps) if f is not None]

    def write(
        self,
        item: ImageItem,
        rgb: NDArray[np.uint8],
        labels: NDArray[np.int32],
        scores: Mapping[int, float],
    ) -> None:
        """Writes label map and overlay of a picture.

        labels: int32 (H, W), indices of `names`, -1 unlabelled. scores: by index, in [0, 1].
        """
        if self.label_maps is not None:
            target = _below(self.label_maps, item, ".png")
            label_maps.write(target, labels, len(self.names))
        targets = [] if self.overlay_file is None else [self.overlay_file]
        if self.overlays is not None:
            targets.append(_below(self.overlays, item, ".png"))
        if targets:
            shown = [scores.get(index) for index in range(len(self.names))]
            drawn = overlays.overlay(rgb, labels, self.names, shown)
            for target in targets:
                pictures.write_png(target, drawn)

    def write_heatmaps(
        self,
        item: ImageItem,
        rgb: NDArray[np.uint8],
        rows: Rows,
        classes: int,
        chosen: Sequence[int] | NDArray[np.int32],
    ) -> None:
        """Writes the probability of each of a picture's words as a picture of its own.

        rows: logits of all `classes`, of which the first are the words `chosen`, by index.
        """
        if self.heatmaps is None:
            return
        size = (rgb.shape[0], rgb.shape[1])
        maps = np.zeros((len(chosen), *size), np.float16)
        for start, stop, probability in probability_blocks(rows, size, classes):
            maps[:, start:stop] = probability[: len(chosen)].cpu().numpy()
        for index, score in zip(chosen, maps, strict=True):
            name = _file_name(self.names[int(index)])
            target = _below(self.heatmaps, item, "") / f"{int(index) + 1:03d}-{name}.png"
            atomic.make_folder(target.parent)
            pictures.write_png(target, overlays.heatmap(rgb, score.astype(np.float32)))


def _below(folder: Path, item: ImageItem, ending: str) -> Path:
    """The file for an image below a folder, made with its parents: `a/b.jpg` is `a/b` + ending."""
    target = folder / str(PurePosixPath(item.name).with_suffix(""))
    target = target.with_name(target.name + ending)
    atomic.make_folder(target.parent)
    return target


def _file_name(word: str) -> str:
    """A word as part of a file name: letters, digits and hyphens."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in word)
    return kept.strip("-")[:60] or "word"
