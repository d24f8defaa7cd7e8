"""Data sets whose every pixel has a class, opened: label maps in the ways of their authors, panoptic files and
COCO masks; and the classes that a data set names in a file of its own."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovtool.datasets import registry, vocabularies
from ovtool.datasets.layouts import LABEL_FILES, Maps
from ovtool.datasets.registry import DataSet
from ovtool.datasets.vocabularies import Vocabulary, folded
from ovtool.errors import InputError, UsageError
from ovtool.formats import (
    coco,
    coco_repair,
    coded_maps,
    image_search,
    json_sections,
    labelled,
    panoptic,
    panoptic_maps,
)
from ovtool.formats import coco_checks as checks
from ovtool.formats.labelled import LabelledImages
from ovtool.settings.protocols import Protocol

BACKGROUND = "background"
UNLABELLED = -1
_UNKNOWN = -2
# Pascal Context's list of 59 calls three classes otherwise than its list of 459 and the papers do
_RESPELLED = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
_READERS: dict[str, Callable[[Path], NDArray[np.int32]]] = {
    "index": coded_maps.read_index,
    "mat": coded_maps.read_matlab,
    "ade": coded_maps.read_ade,
    "colour": coded_maps.read_colours,
}


# --- vocabularies -----------------------------------------------------------------------------------
def vocabulary(name: str, names: vocabularies.Names = "official") -> Vocabulary:
    """A vocabulary by its name: those of `vocabularies`, and `pc459` and `ade847`, which are read from the data
    set's own label file.

    Raises:
        UsageError: It is unknown.
        InputError: The label file is not there or is broken.
    """
    if name not in LABEL_FILES:
        return vocabularies.named(name, names)
    path = _label_file(name)
    if not path.is_file():
        raise InputError(
            f"the names of {name} are read from the data set's own file, which is not at {path}; put it "
            "there, or set DETECTRON2_DATASETS"
        )
    labels = coded_maps.read_label_file(path)
    ids = _ade_ids() if name == "ade847" else tuple(sorted(number for number in labels if number))
    missing = [number for number in ids if number not in labels]
    if missing:
        raise InputError(
            f"{path} lacks the class {missing[0]} of {name}; unpack the data set again"
        )
    listed = [_parts(labels[number]) for number in ids]
    return Vocabulary(tuple(unlike(listed)), ids=ids)


def words_of(files: DataSet) -> Vocabulary:
    """The classes of a data set by their official names, background aside, with the ids that it gives them.

    Raises InputError where the file that names them is not there or is broken.
    """
    if not files.maps:
        source = files.panoptic[0] if files.panoptic else files.masks(only_instances=True)
        return of_categories(source)
    there = [maps for folder, maps in files.maps if folder.is_dir()]
    maps = there[0] if there else files.maps[0][1]
    if maps.vocabulary:
        return vocabulary(maps.vocabulary)
    return Vocabulary(tuple(_values(maps, _beside(files, maps))[0]))


def of_categories(source: Path) -> Vocabulary:
    """The classes of a COCO JSON, with its ids; nothing else of it is looked at.

    Raises InputError where the file is broken or names no classes, as one of captions or of proposals.
    """
    try:
        sections = json_sections.read(source, ("categories",))
    except ValueError:
        sections = None
    if sections is None:
        sections = checks.load_json(source)[1]  # which says what is wrong
    sections, _ = coco_repair.repaired(sections, need_masks=False)
    categories = coco.parse_categories({"categories": [], **sections}, str(source))
    if [category.name for category in categories] in ([], ["object"]):
        raise InputError(f"{source} names no classes to look for; give --classes or --vocabulary")
    names = unlike([(category.name, *category.synonyms) for category in categories])
    return Vocabulary(tuple(names), ids=tuple(category.id for category in categories))


def _label_file(name: str) -> Path:
    """Where the data set's own file of a vocabulary is, or is looked for first."""
    places = [registry.root() / place for place in LABEL_FILES[name]]
    return next((place for place in places if place.is_file()), places[0])


def all_names(name: str) -> Vocabulary:
    """The classes of a vocabulary with every name that is known for them."""
    return vocabulary(name) if name in LABEL_FILES else vocabularies.all_names(name)


def _ade_ids() -> tuple[int, ...]:
    """The 847 classes of ADE20K in the order of MaskFormer's table, as numbers of the index's objectnames."""
    text = vocabularies.package_text("ade847.tsv")
    return tuple(int(number) for number in text.split())


def _parts(label: str) -> tuple[str, ...]:
    """The names in a label of WordNet's: `door, double door`."""
    return tuple(dict.fromkeys(name.strip() for name in label.split(",") if name.strip())) or (
        label,
    )


def unlike(classes: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Classes of which no two share a name. Classes of a single name keep it; of several, the first that no other
    class has is the name, and a class that has none left is called `name (2)`."""
    taken: set[str] = set()
    first: dict[int, str] = {}
    for k, names in sorted(enumerate(classes), key=lambda item: len(item[1]) > 1):
        numbered = (f"{names[0]} ({number})" for number in itertools.count(2))
        first[k] = next(
            name for name in itertools.chain(names, numbered) if folded(name) not in taken
        )
        taken.add(folded(first[k]))
    listed = []
    for k, names in enumerate(classes):
        others = [other for other in names if folded(other) not in taken]
        taken.update(folded(other) for other in others)
        listed.append((first[k], *others))
    return listed


# --- images -----------------------------------------------------------------------------------------
def opened(files: DataSet, has_segments: bool = False) -> LabelledImages:
    """The label maps of a data set: of files, of panoptic ones, or of the masks of a COCO JSON.

    Args:
        files: The data set.
        has_segments: Whether the masks of panoptic files are needed one by one; all are held then.

    Raises:
        InputError: Files are missing or broken.
    """
    if files.panoptic is not None and has_segments:
        source, folder = files.panoptic
        content = checks.load_json(source)[1]
        return labelled.from_dataset(panoptic.read(source, content, folder), str(source))
    if files.panoptic is not None:
        return panoptic_maps.opened(*files.panoptic)
    if not files.maps:
        return labelled.open_source(str(files.masks()))
    names = image_names(files)
    maps, paths = _most(
        [(maps, _paths(folder, maps, names)) for folder, maps in files.maps], len(names)
    )
    if lacking := [path for path in paths if not path.is_file()]:
        raise InputError(
            f"{files.name} lacks the label maps of {len(lacking)} of its {len(names)} images (the first is "
            f"{lacking[0]}); {registry.how_to_get(files.name.partition(':')[0])}"
        )
    classes, table = _values(maps, _beside(files, maps))
    place = dict(zip(names, paths, strict=True))
    return LabelledImages(
        files.name,
        classes=tuple(classes),
        names=tuple(names),
        decode=lambda name: _labels(place[name], maps, table, files.name),
        has_values=True,
        files=tuple(paths),
    )


def _most(candidates: Sequence[tuple[Maps, list[Path]]], count: int) -> tuple[Maps, list[Path]]:
    """Of several folders of label maps the one that has the most; what it lacks is taken from another whose values
    mean the same, for SBD has no maps of some images of VOC's own training split."""
    maps, paths = max(
        candidates, key=lambda candidate: sum(path.is_file() for path in candidate[1])
    )
    kind = dataclasses.replace(maps, folder="")
    alike = [own for other, own in candidates if dataclasses.replace(other, folder="") == kind]
    places = ([path, *(own[k] for own in alike)] for k, path in enumerate(paths))
    return maps, [next((path for path in own if path.is_file()), own[0]) for own in places]


def names_file(files: DataSet) -> Path | None:
    """Where a data set's own file of its classes is, or is looked for; None where the package knows their names."""
    for folder, maps in files.maps:
        if folder.is_dir() and maps.names:
            return _beside(files, maps)
        if folder.is_dir() and maps.vocabulary in LABEL_FILES:
            return _label_file(maps.vocabulary)
    return None


def _beside(files: DataSet, maps: Maps) -> Path:
    """The data set's own file of labels: in its folder, or in that of the label maps, as an archive may have it."""
    folders = (files.folder, *(folder for folder, other in files.maps if other is maps))
    places = [folder / maps.names for folder in folders]
    return next((place for place in places if place.is_file()), places[0])


def image_names(files: DataSet) -> list[str]:
    """The names of a data set's images, of a list or of all in its folder."""
    if files.file_names is not None:
        return list(files.file_names)
    items = image_search.find_images([str(files.images)])
    return [item.name for item in items if item.name.endswith(files.ending)]


def _paths(folder: Path, maps: Maps, names: Iterable[str]) -> list[Path]:
    """The label map of each image."""
    stems = (name.rpartition(".")[0] for name in names)
    return [folder / f"{stem.removesuffix(maps.cut)}{maps.ending}" for stem in stems]


def _values(maps: Maps, names_file: Path) -> tuple[list[tuple[str, ...]], dict[int, int]]:
    """The classes of label maps, and the class of each value; -1 for what is not counted."""
    if maps.vocabulary:
        known = all_names(maps.vocabulary)
        classes, ids = list(known.classes), known.ids or ()
    else:
        labels = coded_maps.read_label_file(names_file)
        labels = {key: name for key, name in labels.items() if key not in maps.ignored}
        classes, ids = unlike([(name,) for name in labels.values()]), tuple(labels)
    table = {value: UNLABELLED for value in maps.ignored}
    rest = len(classes)
    if maps.background is not None or (maps.vocabulary and maps.names):
        classes.append((BACKGROUND,))
    if maps.background is not None:
        table[maps.background] = rest
    if maps.vocabulary and maps.names:
        place = {folded(name): k for k, names in enumerate(classes) for name in names}
        for number, name in coded_maps.read_label_file(names_file).items():
            table[number - maps.offset] = place.get(folded(_RESPELLED.get(name, name)), rest)
    elif maps.in_order:
        table |= {k: k for k in range(len(ids))}
    else:
        table |= {number - maps.offset: k for k, number in enumerate(ids)}
    return classes, table


def _labels(path: Path, maps: Maps, table: dict[int, int], source: str) -> NDArray[np.int32]:
    """The classes of a label map, int32 (H, W). Raises InputError for a value that is none."""
    values = _READERS[maps.coding](path)
    present, place = np.unique(values, return_inverse=True)
    rest = UNLABELLED if maps.is_open else _UNKNOWN
    classes = np.array([table.get(int(value), rest) for value in present], np.int32)
    if (classes == _UNKNOWN).any():
        strange = int(present[classes == _UNKNOWN][0])
        said = coded_maps.colour_text(strange) if maps.coding == "colour" else str(strange)
        raise InputError(
            f"{path} holds the value {said}, which is no class of {source}; correct the file, or take it from the "
            "data set again"
        )
    labels: NDArray[np.int32] = classes[place].reshape(values.shape)
    return labels


def without_background(truth: LabelledImages) -> LabelledImages:
    """A truth whose class `background`, if it has one as its last, is no class: its pixels are unlabelled."""
    if truth.classes[-1] != (BACKGROUND,):
        return truth
    rest = len(truth.classes) - 1

    def decode(name: str) -> NDArray[np.int32]:
        labels = truth.decode(name)
        labels[labels == rest] = UNLABELLED
        return labels

    return dataclasses.replace(truth, classes=truth.classes[:-1], decode=decode)


# --- protocols --------------------------------------------------------------------------------------
def of_protocol(truth: LabelledImages, protocol: Protocol) -> LabelledImages:
    """A truth with the classes of a protocol alone: all others are the class `background`, or are not counted.

    Where background counts, pixels without a class are background too, as with COCO's masks, unless the protocol
    leaves them in doubt and the truth is one of label maps: then they are not counted.

    Raises:
        UsageError: The truth has none of the classes.
        InputError: The file that names the classes is not there.
    """
    known, is_counted = all_names(protocol.vocabulary), protocol.background == "counted"
    place = {folded(name): k for k, names in enumerate(known.classes) for name in reversed(names)}
    place |= {folded(names[0]): k for k, names in enumerate(known.classes)}
    rest = len(known.classes) if is_counted else UNLABELLED
    table = [place.get(folded(names[0]), rest) for names in truth.classes]
    if all(k == rest for k in table):
        raise UsageError(
            f"{truth.source} has none of the {len(known.classes)} classes of the protocol, such as "
            f"{known.names[0]}; give the truth of {protocol.data_set}"
        )
    is_doubtful = protocol.has_doubt and truth.has_values
    lookup = np.array([*table, UNLABELLED if is_doubtful else rest], np.int32)

    def decode(name: str) -> NDArray[np.int32]:
        labels = truth.decode(name)
        if labels.max(initial=UNLABELLED) >= len(table):
            raise InputError(
                f"{truth.source}: {name} holds the label {labels.max()}, but there are only {len(table)} "
                "classes; complete classes.txt"
            )
        decoded: NDArray[np.int32] = lookup[labels]
        return decoded

    classes = known.classes + (((BACKGROUND,),) if is_counted else ())
    return dataclasses.replace(truth, classes=classes, decode=decode, has_values=True)
