"""What a command can refuse before it loads what it works with: an error that needs no network answers at once.

The stages check the same and more; what is found here only comes sooner.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovtool.errors import InputError
from ovtool.formats import atomic
from ovtool.settings.option import fields, is_settings
from ovtool.settings.proposer import ProposerTraining
from ovtool.settings.segment import Trained
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.settings.shared import Compute, Run, Source
from ovtool.settings.words import Words

# parameters that name a file, a folder or a data set that is read
SOURCES: tuple[str, ...] = ("captions", "labels", "cams", "pairs", "truth", "validation")
SOURCES += ("prediction", "other", "ground_truth")
WITH_IMAGES = ("captions", "labels", "truth")  # those whose files lie apart from their images
MADE_BY = {"pacl": "; --pacl is a file of train-pacl"}
KINDS = {  # of the files that settings name
    "pacl": "pacl",
    "prompts": "mask-prompts",
    "segmenter": "segmenter",
    "background_prompts": "background-prompts",
    "generator": "mask-generator",
    "embeddings": "proposals",
}
LISTS = (".json", ".csv", ".tsv", ".txt")
CAPTIONS = ("COCO captions",)
WITH_CLIP = (
    "words",
    "captions",
    "data_set",
)  # parameters of commands that use a CLIP, whichever is named
READ = ("captions", "pairs", "truth", "labels", "validation", "proposals", "coco")
SHORT, MIDDLE = 300_000, 20_000_000  # bytes of what is read twice in no time: all, or its classes


def check(values: Mapping[str, Any]) -> None:
    """Refuses inputs that are not there, words that are missing, and an output that must not be written to.

    Args:
        values: The arguments of a command, by name.

    Raises:
        UsageError: No images, no folder of them, no words, or a data set that is unknown.
        InputError: No file, folder or data set of a name, or an output that cannot be written.
        OutputExistsError: The output exists.
        MismatchError: A file is of another kind.
        ModelError: No model of that name.
    """
    from ovtool.datasets import registry

    _check_outputs(values)
    if str(values.get("out")) == "-" and "inputs" not in values:
        return  # the command says first whether it can write there
    _check_images(values)
    named = [value.classes for value in values.values() if isinstance(value, Words)]
    for given in values.get("inputs") or ():
        is_word = any(named) and given.isalpha() and not Path(given).exists()
        if is_word and not registry.is_name(given):
            raise InputError(
                f'no such file or folder: {given}; if it is a word, write all in one: --classes "{named[0]},{given}"'
            )
        _require(given)
    for name in SOURCES:
        given = str(values.get(name) or "-")
        if name != "captions" or Path(given).suffix in LISTS:  # not shards, and no address
            _require(given, "file" if Path(given).suffix else "file or folder")
    for folder in values.get("folders") or ():
        if not Path(folder).is_dir():
            raise InputError(f"no such folder: {folder}")
    if str(values.get("cams") or "-") != "-":
        _check_kind(Path(values["cams"]), "cams")
    data_set = values.get("data_set")
    if data_set is not None and not Path(data_set).exists():
        registry.split_name(data_set)
    _check_json(values)
    _check_model(values)
    for value in values.values():
        if is_settings(type(value)):
            _check_settings(value, values)


def _check_outputs(values: Mapping[str, Any]) -> None:
    run = values.get("run")
    if isinstance(run, Run) and "to" not in values:  # whose output may be a folder
        for name in ("out", "plot"):
            if values.get(name) is not None:
                atomic.check_output(Path(values[name]), run.may_replace(values[name]))


def _check_model(values: Mapping[str, Any]) -> None:
    """Raises ModelError for a model that is named and unknown; that of the environment counts where no file
    of a setting names another."""
    compute = values.get("compute")
    if not isinstance(compute, Compute):
        return
    from ovtool.models import resolve

    name = compute.model
    if name is None and any(parameter in values for parameter in WITH_CLIP):
        of_files = (getattr(value, kind, None) for value in values.values() for kind in KINDS)
        if not any(of_files):
            name = os.environ.get(resolve.ENVIRONMENT, "").strip() or None
    if name is not None:
        resolve.spec(resolve.choose(name))


def _check_json(values: Mapping[str, Any]) -> None:
    """Raises InputError for a JSON of captions, pairs, masks or images that holds something else, UsageError for
    masks that teach nothing; of a short one all is read, and its own reader says what is wrong. Labels in two
    columns must be of the classes."""
    if all(_path(values, name) == Path("-") for name in READ):
        return  # the readers are slow to import

    from ovtool.formats import captions, kinds

    for path, wanted, read in _readers(values):
        is_table = wanted == CAPTIONS and captions.is_table(path)
        if path.is_file() and (path.suffix == ".json" or is_table):
            is_wrong = not is_table and kinds.kind_of_long(path) not in wanted
            if is_wrong or path.stat().st_size <= SHORT:
                with _unheard():
                    read(path)
    listed = Path(values.get("labels") or "-")
    if "classes" in values and listed.suffix in LISTS[1:] and listed.stat().st_size <= MIDDLE:
        from ovtool.inputs import labels

        if listed.stat().st_size > SHORT:
            labels.columns(listed, values["classes"])
        else:
            with _unheard():
                labels.read(str(listed), values["images"], values["classes"])
    if isinstance(values.get("training"), SegmenterTraining):
        _check_segmenter(str(listed), values["training"].with_background)


def _path(values: Mapping[str, Any], name: str) -> Path:
    """The file of this name, from the values of a command or from one of its settings; `-` is none."""
    stated = (getattr(v, name, None) for v in values.values() if is_settings(type(v)))
    return Path(values.get(name) or next(filter(None, stated), None) or "-")


def _readers(
    values: Mapping[str, Any],
) -> Iterator[tuple[Path, tuple[str, ...], Callable[[Path], object]]]:
    """The JSON files that are given, each with the kinds that it may be of, and what reads it whole."""
    from ovtool.formats import coco, learnable
    from ovtool.inputs import captions, labels, truths

    masks, images = ("COCO masks",), ("COCO masks", "COCO panoptic", "COCO captions")
    of = functools.partial(_path, values)
    folder = values.get("images")
    yield of("captions"), CAPTIONS, lambda path: captions.find(str(path), folder)
    yield (
        of("pairs"),
        masks,
        lambda path: learnable.check_pairs(coco.read(path, root=folder), str(path)),
    )
    training = values.get("training")
    if isinstance(training, ProposerTraining):
        targets = training.targets
        yield (
            of("truth"),
            masks,
            lambda path: learnable.check_truth(coco.read(path, root=folder), targets),
        )
    if isinstance(training, SegmenterTraining):
        is_background = training.with_background
        yield (
            of("labels"),
            masks,
            lambda path: learnable.check_labels(
                coco.read(path, root=folder), is_background, str(path)
            ),
        )
    else:
        classes = values.get("classes")
        yield of("labels"), masks, lambda path: labels.read(str(path), folder, classes)
    yield of("validation"), masks, coco.read
    yield of("proposals"), masks, coco.read
    if "data_set" in values:
        yield of("coco"), masks, lambda path: truths.open_probed(None, values["source"])
    else:
        root = getattr(values.get("source"), "images", None)
        yield of("coco"), images, lambda path: coco.read_images(path, root)


@contextmanager
def _unheard() -> Iterator[None]:
    """Leaves to the stage, which reads the same, what is said of repairs."""
    logger = logging.getLogger("ovtool")
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was


def _check_segmenter(labels: str, with_background: bool) -> None:
    """Raises UsageError for labels of a single class, InputError where their classes cannot be read."""
    from ovtool.formats import json_sections, label_maps, labelled, learnable

    path, names = Path(labels), None
    if (path / labelled.CLASSES_FILE).is_file():
        names = list(label_maps.read_classes(path / labelled.CLASSES_FILE))
    elif path.suffix == ".json" and path.is_file() and path.stat().st_size <= MIDDLE:
        sections = json_sections.read(path, ("categories",)) or {}
        listed = sections.get("categories")
        is_list = isinstance(listed, list) and all(isinstance(own, dict) for own in listed)
        names = [str(own.get("name")) for own in listed] if listed and is_list else None
    if names is not None:
        learnable.check_classes(names, with_background, labels)


def _require(name: str, kind: str = "file or folder") -> None:
    """Raises InputError for a name that is neither a file nor a folder nor a data set."""
    if name == "-" or Path(name).exists():
        return
    from ovtool.datasets import registry

    if not registry.is_name(name):
        raise InputError(f"no such {kind}: {name}")


def _check_images(values: Mapping[str, Any]) -> None:
    """Raises UsageError where there are no images or not their folder, InputError where that is not there or
    holds none."""
    from ovtool.formats import file_matching, image_search

    source = values.get("source", Source())
    inputs = values.get("inputs") or ()
    is_empty = any(Path(name).is_dir() and not image_search.has_image(name) for name in inputs)
    if "inputs" in values and (is_empty or bool(inputs) == (source.coco is not None)):
        from ovtool.inputs import images

        images.find(inputs, source.coco, source.images)  # which says what is wrong
    if source.coco is not None and str(source.coco) != "-" and not source.coco.is_file():
        raise InputError(f"no such file: {source.coco}")
    for name in WITH_IMAGES:
        listed = values.get(name)
        if "images" in values and listed is not None and Path(listed).suffix.lower() in LISTS:
            file_matching.folder_of(values["images"], listed, listed)


def _check_settings(value: Any, values: Mapping[str, Any]) -> None:
    """Raises InputError for a file of a setting that is not there, MismatchError for one of another kind,
    UsageError for words that are missing and for a proposer that is not known."""
    if isinstance(value, Words) and not isinstance(values.get("method"), Trained):
        from ovtool.inputs import words

        coco_file = values.get("source", Source()).coco
        words.gather((), values.get("inputs") or (), value, coco_file)
    for name, field in fields(type(value)).items():
        path = getattr(value, name)
        if isinstance(path, Path) and field.option.shapes and not path.exists():
            raise InputError(f"no such file: {path}{MADE_BY.get(name, '')}")
        if isinstance(path, Path) and name in KINDS:
            _check_kind(path, KINDS[name])
        if name == "proposer" and isinstance(path, str):
            from ovtool.proposers import names

            names.check_name(path)
            if Path(path).suffix == ".safetensors":
                _check_kind(Path(path), "proposer")


def _check_kind(path: Path, kind: str) -> None:
    """Raises InputError for no safetensors file, MismatchError for one of another kind."""
    from ovtool.formats import tensors

    tensors.check_kind(path, kind)
