"""`check`: whether files are whole and right. Everything in them is read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovtool.errors import (
    InputError,
    OutputExistsError,
    OvtoolError,
    UpToDate,
    UsageError,
    short,
)
from ovtool.formats import (
    atomic,
    coco,
    coco_annotations,
    coco_checks,
    coco_repair,
    file_matching,
    folders,
    image_search,
    images,
    kinds,
    label_maps,
    labelled,
    lock,
    panoptic,
    panoptic_files,
    tensors,
)
from ovtool.formats.json_sections import Entries
from ovtool.inputs import any_masks, data_folders
from ovtool.inputs import asked as requests
from ovtool.inputs import images as image_inputs
from ovtool.inputs.labels import object_names
from ovtool.outputs import mask_formats
from ovtool.settings.shared import Run


def run(
    files: str | Path | Sequence[str | Path],
    *,
    fix: bool = False,
    out: str | Path | None = None,
    run: Run = Run(),
) -> list[dict[str, Any]]:
    """Validates files or folders in full.

    Args:
        files: one or several, of the kinds that `info` tells apart; `-` is stdin.
        fix: writes one COCO JSON again, without what can be repaired (`formats.coco_repair`).
        out: where the repaired file goes; `-` is stdout.
        run: `overwrite` replaces that file, `update` only where it is older than the other; `dry_run` writes
            nothing.

    Returns:
        For each of them `file`, `kind` (None if the file is not there, or nothing that ovtool knows) and
        `defects`: one line for each, with what, where and how to mend it; none if all is right. With `fix` a
        file that was written has no defects, and in `repaired` the line that says what was done.

    Raises:
        UsageError: `fix` without `out` or the reverse, with several files, or into the file that is read.
        OutputExistsError: `out` exists, or the folder of its PNGs.
        UpToDate: with `run.update` it is newer than the file that is read.
    """
    names = image_inputs.names_of(files)
    if not fix:
        if out is not None:
            raise UsageError("-o is where --fix writes; give --fix with it")
        return [_report(name) for name in names]
    if out is None or len(names) != 1:
        raise UsageError("--fix takes one COCO JSON and writes it again; give -o FILE")
    if str(out) != "-":
        atomic.check_output(Path(out), run.replaces)
        requests.refuse_inputs([Path(out)], [Path(names[0])])
        if run.update and names[0] != "-" and requests.is_newer(Path(out), [Path(names[0])]):
            raise UpToDate(out)
    with lock.held(None if run.dry_run else out):
        return [_repaired(names[0], str(out), run)]


def _repaired(source: str, out: str, run: Run) -> dict[str, Any]:
    where = "standard input" if source == "-" else source
    report: dict[str, Any] = {"file": source, "kind": None, "defects": []}
    try:
        report["kind"], content = kinds.kind_of(source)
        if report["kind"] == "COCO panoptic":
            return {**report, "repaired": _repaired_segments(source, content, out, run)}
        if report["kind"] != "COCO masks":
            raise UsageError(
                f"{where} is no COCO JSON of masks or panoptic segments; --fix repairs those alone"
            )
        sections, repairs = coco_repair.repaired(content)
        dataset = coco.parse(sections, where)
        if not run.dry_run:
            atomic.check_output(
                Path(out), run.replaces
            )  # another run may have written it meanwhile
            coco.write(dataset, out)
    except OvtoolError as error:
        if isinstance(error, UsageError | OutputExistsError):
            raise
        return {**report, "defects": [str(error)]}
    return {**report, "repaired": _what_was_done(out, {**repairs, **dataset.repairs})}


def _repaired_segments(source: str, content: Any, out: str, run: Run) -> str:
    """Writes panoptic segments again, with their PNGs beside; what was done, as one line."""
    if source == "-" or out == "-":
        raise UsageError("the PNGs of panoptic segments lie beside their JSON; name files for -")
    beside = panoptic_files.images_folder(Path(out))
    folders.check(beside, run.replaces)
    dataset = panoptic.read(Path(source), content)
    if not run.dry_run:
        with lock.held(beside):  # another run may have written them meanwhile
            folders.check(beside, run.replaces)
            atomic.check_output(Path(out), run.replaces)
            mask_formats.write(dataset, mask_formats.Request("coco-panoptic", out))
    return _what_was_done(out, dataset.repairs)


def _what_was_done(out: str, counts: Mapping[str, int]) -> str:
    return (
        coco_repair.sentence(out, counts, "") if counts else f"{out}: there was nothing to repair"
    )


def _report(source: str) -> dict[str, Any]:
    kind = None
    try:
        kind, content = kinds.kind_of(source)
        defects = list(_defects(kind, source, content))
    except OvtoolError as error:
        defects = [str(error)]
    return {"file": source, "kind": kind, "defects": defects}


def _defects(kind: str, source: str, content: Any) -> Iterator[str]:
    path = Path(source)
    where = "standard input" if source == "-" else source
    if kind == "COCO masks":
        yield from _coco(content, where)
    elif kind == "COCO panoptic":
        yield from panoptic.defects(path, content)
    elif kind in kinds.FOREIGN:
        yield from _caught(any_masks.read, source)
    elif kind == "COCO captions":
        yield from _captions(content, where)
    elif kind == "COCO results":
        yield from _results(content, where)
    elif kind == "classes per image":
        labelled.check_classes_per_image(content, where)
    elif kind == "safetensors":
        yield from _safetensors(path)
    elif kind == "parts":
        coco.read(path)  # complete, and a right COCO file when merged
    elif kind == "label map":
        yield from _label_map(path, kinds.classes_of(path))
    elif kind == "label maps":
        yield from _label_maps(path)
    elif kind == "image":
        images.read_rgb(path)
    elif kind == "images":
        for item in image_search.find_images([source]):
            yield from _caught(images.read_rgb, item.path)
    elif kind == "data set":
        yield from _data_set(path)


def _data_set(folder: Path) -> Iterator[str]:
    """Defects of every file of a data set, and images that its annotations name and that are not there."""
    files = data_folders.opened(folder)
    for path, home in files.annotations:
        if path.suffix == ".xml":
            yield from _caught(_voc, path)
            continue
        report = _report(str(path))
        yield from report["defects"]
        if report["kind"] in ("COCO masks", "COCO captions") and not report["defects"]:
            yield from _absent(path, home)
    for item in files.images:
        yield from _caught(images.read_rgb, item.path)
    for path in files.label_maps:
        try:
            yield from _label_map(path, kinds.classes_of(path))
        except OvtoolError as error:
            yield str(error)


def _absent(path: Path, home: Path) -> Iterator[str]:
    """Images that a COCO JSON lists and that are not in their folder, or have another size there."""
    _, content = coco_checks.load_long(path)
    listed = coco.parse_images(content, str(path))
    places = [(image, file_matching.place(home, image.file_name)) for image in listed]
    absent = [image.file_name for image, place in places if place is None]
    if absent:
        yield f"{path} lists {len(absent)} images that are not in {home}: {labelled.shortened(absent, 3)}"
    for image, place in places:
        if place is None or _caught(images.read_size, place):
            continue  # an image that cannot be read is a defect of its own
        height, width = images.read_size(place)
        if (height, width) != (image.height, image.width):
            yield (
                f"{path}: {image.file_name} is {image.width} x {image.height} there, but the image has "
                f"{width} x {height} pixels; write its true size, or put the right image there"
            )


def _voc(path: Path) -> None:
    """An annotation of VOC has the names of its objects."""
    if nameless := object_names(path).count(""):
        raise InputError(f"{path}: {nameless} of its objects have no name; add it")


def _caught(function: Any, *arguments: Any) -> list[str]:
    """The one defect that a reader finds, or none."""
    try:
        function(*arguments)
    except OvtoolError as error:
        return [str(error)]
    return []


def _coco(content: Mapping[str, Any], where: str) -> Iterator[str]:
    """Defects of the sections, then of each annotation on its own."""
    sections = [
        *_caught(coco.parse_images, content, where),
        *_caught(coco.parse_categories, content, where),
        *_caught(_annotation_ids, content, where),
        *_caught(coco.parse, {**content, "images": [], "categories": [], "annotations": []}, where),
    ]
    yield from sections
    said = set()
    if not sections:
        entries = coco_checks.entries_with_ids(content, "annotations", where)
        for line in _of_annotations(entries, content, where):
            said.add(line)
            yield line
    if sections or said:
        yield from (line for line in _behind_repairs(content, where) if line not in said)


def _of_annotations(
    entries: Iterable[coco_annotations.Placed], content: Mapping[str, Any], where: str
) -> Iterator[str]:
    by_id = {image.id: image for image in coco.parse_images(content, where)}
    known = {category.id: category for category in coco.parse_categories(content, where)}
    for entry, result in coco_annotations.judged(entries, by_id, known):
        if isinstance(result, InputError):
            yield str(result)
            continue
        place = f"{where}: annotations id {result.id}"
        yield from coco_checks.wrong_measures(entry, result.area, result.bbox, place)


def _behind_repairs(content: Mapping[str, Any], where: str) -> Iterator[str]:
    """Defects of annotations whose ids or images must be repaired before they can be judged."""
    listed = content.get("annotations")
    fixed, _ = coco_repair.repaired({**content, "annotations": None})
    if (
        not isinstance(listed, list | Entries)
        or _caught(coco.parse_images, fixed, where)
        or _caught(coco.parse_categories, fixed, where)
    ):
        return  # what refers to them cannot be judged
    repaired = (
        entry for entry in coco_repair.repaired_results(listed)[0] if isinstance(entry, dict)
    )
    entries = (
        (f"{where}: annotations id {own.get('id')}", own.get("id", 0), own) for own in repaired
    )
    yield from _of_annotations(entries, fixed, where)


def _annotation_ids(content: Mapping[str, Any], where: str) -> None:
    for _ in coco_checks.entries_with_ids(content, "annotations", where):
        pass


def _captions(content: Mapping[str, Any], where: str) -> Iterator[str]:
    sections = [
        *_caught(coco.parse_images, content, where),
        *_caught(_annotation_ids, content, where),
    ]
    yield from sections
    if sections:
        return
    known = {image["id"]: image for image in content["images"]}
    for place, _, entry in coco_checks.entries_with_ids(content, "annotations", where):
        yield from _caught(
            coco_checks.check_reference, entry.get("image_id"), "image_id", known, "images", place
        )
        yield from _caught(coco_checks.text, entry, "caption", place)


def _results(content: Iterable[Any], where: str) -> Iterator[str]:
    """What can be said of a bare list without its ground truth: each entry has what it needs."""
    for index, entry in enumerate(content):
        place = f"{where}: entry {index}"
        if not isinstance(entry, dict):
            yield f"{place} is {short(entry)}, not an object; remove it"
            continue
        lacking = [key for key in ("image_id", "category_id", "score") if key not in entry]
        if "segmentation" not in entry and "bbox" not in entry:
            lacking.append("segmentation")
        if lacking:
            yield f"{place} has no {', '.join(lacking)}; add what is missing, or remove it"


def _safetensors(path: Path) -> Iterator[str]:
    """Defects of the header, and tensors that hold NaN or infinities."""
    for name in tensors.not_finite(path):
        yield f"{path}: tensor {name} holds NaN or infinite numbers; make the file again"


def _label_map(path: Path, classes_file: Path | None) -> Iterator[str]:
    highest = int(label_maps.read(path).max())
    if classes_file is not None:
        yield from _unnamed(path, highest, classes_file, label_maps.read_classes(classes_file))


def _unnamed(path: Path, highest: int, classes_file: Path, names: Sequence[str]) -> Iterator[str]:
    """The defect of a label map whose highest label has no name."""
    if highest >= len(names):
        yield (
            f"{path} holds the label {highest}, but {classes_file} names only {len(names)} "
            "classes; complete it"
        )


def _label_maps(folder: Path) -> Iterator[str]:
    classes_file = folder / labelled.CLASSES_FILE
    names = label_maps.read_classes(classes_file)
    files = labelled.label_map_files(folder)
    if not files:
        yield f"{folder} holds no label map; put a PNG there for each image"
    highest = -1
    has_unlabelled = False
    for path in files:
        try:
            labels = label_maps.read(path)
        except OvtoolError as error:
            yield str(error)
            continue
        own = int(labels.max())
        yield from _unnamed(path, own, classes_file, names)
        highest = max(highest, own)
        has_unlabelled = has_unlabelled or bool((labels == label_maps.UNLABELLED).any())
    if highest == 0 and has_unlabelled and len(names) > 1:
        yield (
            f"every label map of {folder} holds 0 and 255 alone, and 255 is a pixel without a label; where it is of "
            f"the class {short(names[1])}, write 1"
        )
