"""The images that a run writes beside its JSON: label maps, overlays, heat maps, cut-outs."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ovtool.errors import InputError, OutputExistsError, UsageError
from ovtool.formats import atomic, label_maps, overlays
from ovtool.formats import images as image_files
from ovtool.formats.file_matching import image_stem
from ovtool.formats.images import ImageItem
from ovtool.methods.class_maps import Rows, probability_blocks, row_blocks
from ovtool.settings.segment import Drawn

CLASSES_FILE = "classes.txt"
MAX_HEAT_BYTES = 1 << 29  # of the heat maps that are held at once


@dataclass(frozen=True)
class DrawnFiles:
    """Where the images of a run are written; None writes none of that kind.

    Attributes:
        names: The name of every class of the run.
        drawn: The folders, with the images' own relative names below them.
        overlay_file: The one overlay of a run over one image.
        doubled: Names without their endings that several images of the run have (`doubled_stems`): what is
            drawn of `a.bmp` is then `a.bmp.png`, and not the `a.png` of `a.jpg`.
    """

    names: Sequence[str]
    drawn: Drawn = field(default_factory=Drawn)
    overlay_file: Path | None = None
    doubled: frozenset[str] = frozenset()

    @property
    def folders(self) -> dict[str, Path]:
        """The folders that are written to, by kind."""
        kinds = ("label_maps", "overlays", "heatmaps", "cut_outs")
        return {kind: getattr(self.drawn, kind) for kind in kinds if getattr(self.drawn, kind)}

    @property
    def places(self) -> dict[str, str]:
        """All that is written, kind to place."""
        alone = {} if self.overlay_file is None else {"overlay": str(self.overlay_file)}
        return {kind: str(folder) for kind, folder in self.folders.items()} | alone

    def check(
        self, items: Sequence[ImageItem], overwrite: bool, files: Iterable[Path] = ()
    ) -> None:
        """Refuses places that cannot or must not be written to, before any work is done.

        Args:
            items: The images that are drawn.
            overwrite: What is there may be replaced.
            files: What else is read.

        Raises OutputExistsError where a folder holds something already, or the overlay is there;
        UsageError where images would replace each other, or one that is read; InputError
        where a folder cannot be made or written to.
        """
        if len({os.path.realpath(folder) for folder in self.folders.values()}) < len(self.folders):
            raise UsageError("label maps, overlays, heat maps and cut-outs need a folder each")
        paths = (*(item.path for item in items), *files)
        read = {identity for path in paths if (identity := atomic.identity(path))}
        for folder in self.folders.values():
            _check_folder(folder, overwrite)
            self._check_targets(folder, items, read)
        if self.drawn.label_maps is not None:
            classes = self.drawn.label_maps / CLASSES_FILE
            is_read = atomic.identity(classes) in read
            if is_read or not overwrite:
                _check_classes(classes, self.names, is_read)
        if self.overlay_file is not None:
            atomic.check_output(self.overlay_file, overwrite)
            _check_no_input(self.overlay_file, read)

    def prepare(self) -> None:
        """Makes the folders, removes what killed runs left half-written in them, and writes the names
        of the classes beside the label maps."""
        for folder in self.folders.values():
            atomic.make_folder(folder)
            atomic.remove_stale_below(folder)
        if self.overlay_file is not None:
            atomic.remove_stale(self.overlay_file)
        if self.drawn.label_maps is not None:
            label_maps.write_classes(self.drawn.label_maps / CLASSES_FILE, self.names)

    def write(
        self,
        item: ImageItem,
        rgb: NDArray[np.uint8],
        labels: NDArray[np.int32],
        scores: Mapping[int, float],
    ) -> None:
        """Writes label map, overlay and cut-outs of an image.

        Args:
            item: The image.
            rgb: Its pixels, uint8 (H, W, 3).
            labels: int32 (H, W), indices of `names`, -1 where a pixel has no label.
            scores: In [0, 1], by index.
        """
        if self.drawn.label_maps is not None:
            target = self._made(self.drawn.label_maps, item)
            label_maps.write(target, labels, len(self.names), self.names)
        targets = [] if self.overlay_file is None else [self.overlay_file]
        if self.drawn.overlays is not None:
            targets.append(self._made(self.drawn.overlays, item))
        if targets:
            by_index = [scores.get(index) for index in range(len(self.names))]
            drawn = overlays.overlay(rgb, labels, self.names, by_index)
            for target in targets:
                image_files.write_png(target, drawn)
        if self.drawn.cut_outs is not None:
            folder = self._made(self.drawn.cut_outs, item, "")
            atomic.make_folder(folder)
            for index in np.unique(labels[labels >= 0]).tolist():
                image_files.write_png(folder / self._file_of(index), cut_out(rgb, labels == index))

    def write_heatmaps(
        self,
        item: ImageItem,
        rgb: NDArray[np.uint8],
        rows: Rows,
        classes: int,
        indices: Sequence[int],
        heat: Rows | None = None,
        only: Set[int] | None = None,
    ) -> None:
        """Writes the probability of each of an image's words as an image of its own.

        Args:
            item: The image.
            rgb: Its pixels, uint8 (H, W, 3).
            rows: The logits of all classes, the image's words first.
            classes: The number of all classes.
            indices: The place of each of the image's words in `names`.
            heat: What is drawn in place of the probabilities, in [0, 1].
            only: The places of the words that are drawn; None draws all of the image.
        """
        if self.drawn.heatmaps is None:
            return
        size = (rgb.shape[0], rgb.shape[1])
        folder = self._made(self.drawn.heatmaps, item, "")
        atomic.make_folder(folder)
        step = max(1, MAX_HEAT_BYTES // (2 * size[0] * size[1]))
        for first in range(0, len(indices), step):
            group = indices[first : first + step]
            maps = np.empty((len(group), *size), np.float16)
            for start, stop, values in _heat_blocks(rows, heat, size, classes):
                maps[:, start:stop] = values[first : first + len(group)].cpu().numpy()
            for index, score in zip(group, maps, strict=True):
                if only is None or index in only:
                    drawn = overlays.heatmap(rgb, score.astype(np.float32))
                    image_files.write_png(folder / self._file_of(index), drawn)

    def _check_targets(
        self, folder: Path, items: Sequence[ImageItem], read: Set[tuple[int, int]]
    ) -> None:
        """Refuses images that would be drawn as one, and files that are read."""
        taken: dict[Path, ImageItem] = {}
        for item in items:
            target = self._target(folder, item)
            other = taken.setdefault(target, item)
            if other is not item:
                raise UsageError(
                    f"{other.name} and {item.name} would both be drawn as {target}; rename one of them"
                )
            _check_no_input(target, read)

    def _file_of(self, index: int) -> str:
        """The name of the file of a word in the folder of an image."""
        return f"{index + 1:03d}-{_plain(self.names[index])}.png"

    def _target(self, folder: Path, item: ImageItem, ending: str = ".png") -> Path:
        """The file for an image below a folder: for `a/b.jpg`, `a/b` and the ending."""
        stem = image_stem(item.name)
        return folder / f"{item.name if stem in self.doubled else stem}{ending}"

    def _made(self, folder: Path, item: ImageItem, ending: str = ".png") -> Path:
        """The same, its parents made."""
        target = self._target(folder, item, ending)
        atomic.make_folder(target.parent)
        return target


def cut_out(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What a mask bool (H, W), which is not empty, covers of an image uint8 (H, W, 3), in the box of the mask:
    uint8 (h, w, 4), of which all is 0 outside the mask and alpha is 255 inside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = mask[box][..., None]
    alpha = np.full((*inside.shape[:2], 1), 255, np.uint8)
    return np.where(inside, np.concatenate([rgb[box], alpha], axis=2), np.uint8(0))


def _heat_blocks(
    rows: Rows, heat: Rows | None, size: tuple[int, int], classes: int
) -> Iterator[tuple[int, int, Tensor]]:
    """The values of heat maps in row blocks: (start, stop, (classes, stop - start, W))."""
    if heat is None:
        return probability_blocks(rows, size, classes)
    return ((start, stop, heat(start, stop)) for start, stop in row_blocks(size, classes))


def _check_folder(folder: Path, overwrite: bool) -> None:
    """A folder for images: empty, apart from names of classes, or yet to be made."""
    above = atomic.above(folder)
    atomic.check_folder(folder, above)
    link = next((path for path in folder.rglob("*") if path.is_symlink()), None)
    if link is not None:
        raise InputError(
            f"{link} is a link, and no image is drawn through one; remove it, or choose another folder"
        )
    filled = above == folder.absolute() and {
        path.name
        for path in folder.iterdir()
        if not atomic.is_temporary(path)  # of a run that was killed before its first part
    }
    if filled and filled != {CLASSES_FILE} and not overwrite:
        raise OutputExistsError(
            f"{folder} is not empty; choose another folder, or give --overwrite"
        )


def _check_classes(path: Path, names: Sequence[str], is_read: bool) -> None:
    """Refuses to replace a file of other classes; one of the same classes may be left by a killed run."""
    if path.is_file() and path.read_bytes() != label_maps.classes_text(names).encode():
        if is_read:
            raise UsageError(f"{path} is read by this run; choose another folder for label maps")
        raise OutputExistsError(
            f"{path} names other classes; choose another folder, or give --overwrite"
        )


def _check_no_input(target: Path, read: Set[tuple[int, int]]) -> None:
    if atomic.identity(target) in read:
        raise UsageError(f"{target} is an image that is read; draw it in another folder")


def doubled_stems(items: Sequence[ImageItem]) -> frozenset[str]:
    """The names without their endings that several images have."""
    stems = Counter(image_stem(item.name) for item in items)
    return frozenset(stem for stem, count in stems.items() if count > 1)


def _plain(word: str) -> str:
    """A word as part of a file name: letters, digits and hyphens."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in word)
    return kept.strip("-")[:60] or "word"
