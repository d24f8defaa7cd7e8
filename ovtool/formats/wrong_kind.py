"""What a file is that another command should read, for the message of the command that was given it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ovtool.formats import json_sections, strict_json

# kind of a safetensors file: what it is, what makes it, what reads it
TENSORS = {
    "cams": ("class activation maps", "cam", "refine"),
    "mask-prompts": ("mask prompts", "tune-prompts", "segment --prompts"),
    "background-prompts": (
        "background prompts",
        "tune-prompts --kind background",
        "refine --background-prompts",
    ),
    "pacl": ("a PACL head", "train-pacl", "segment --pacl"),
    "mask-generator": ("a mask generator", "cam --save-generator", "refine --generator"),
    "proposer": ("a proposer", "train-proposer", "propose --proposer"),
    "segmenter": ("a segmenter", "train-segmenter", "segment --segmenter"),
    "proposals": (
        "embeddings of proposals",
        "propose --save-embeddings",
        "segment --embeddings",
    ),
}
# command of a COCO JSON: what it is, and what reads it
COCO = {
    "mine-pairs": ("a COCO JSON of pairs", "tune-prompts"),
    "propose": ("a COCO JSON of proposals", "segment --proposals"),
    "segment": ("a COCO JSON of segments", "evaluate"),
    "refine": ("a COCO JSON of pseudo masks", "train-segmenter"),
}

# keys of an annotation as another program keeps it, and that program; each of them exports COCO JSON
TOOLS = (
    ({"shapes", "imagePath"}, "LabelMe"),
    ({"data", "annotations"}, "Label Studio"),
    ({"filename", "regions"}, "VIA"),
    ({"objects", "size", "tags"}, "Supervisely"),
    ({"data_row", "projects"}, "Labelbox"),
    ({"item", "annotations"}, "V7 Darwin"),
    ({"categories", "items"}, "Datumaro"),
    ({"dataset", "name"}, "Segments.ai"),
    ({"labels", "name"}, "Scalabel, as BDD100K has it"),
)
# the same of data sets and models, with what to give in place
OTHERS = (
    ({"imgHeight", "imgWidth", "objects"}, "polygons of Cityscapes", "give the data set cityscapes, or its label maps"),
    ({"predicted_iou", "segmentation"}, "a list of SAM's masks of one image", "write them as COCO JSON, with images and ids"),
    ({"image", "annotations"}, "masks of one image, as SA-1B has them", "write them as COCO JSON, with a list of images"),
)  # fmt: skip
_LONG = 2**20  # bytes of JSON that is not read in full
# keys of an annotation that is no caption, and what it is
_NO_CAPTIONS = (
    ("segments_info", "panoptic segments"),
    ("segmentation", "masks"),
    ("bbox", "boxes"),
)
# how a file begins that is not what its name says
_BEGINNINGS = (
    (b"version https://git-lfs", "is a pointer of Git LFS and not the file; fetch it with git lfs pull"),
    (b"<!doctype html", "is a web page, as a download that fails leaves it; download it again"),
    (b"<html", "is a web page, as a download that fails leaves it; download it again"),
    *((start, "is an archive; unpack it, and give what is in it")
      for start in (b"\x1f\x8b", b"pk\x03\x04", b"rar!", b"7z\xbc\xaf", b"\xfd7zxz", b"\x28\xb5\x2f\xfd")),
    *((start, "is UTF-16 text; save it as UTF-8") for start in (b"\xff\xfe", b"\xfe\xff")),
)  # fmt: skip


def of_beginning(content: bytes | Path) -> str | None:
    """What a file is that nothing here reads, told by its first bytes, and the mend; None for any other."""
    if isinstance(content, Path):
        try:
            with open(content, "rb") as handle:
                content = handle.read(64)
        except OSError:
            return None
    head = content[:64].lstrip(b" \r\n\t").lower()
    return next((what for start, what in _BEGINNINGS if head.startswith(start)), None)


def of_tool(content: object) -> str | None:
    """What parsed JSON is as an annotation of another program, and the mend; None for any other JSON. Some
    keep one image in a file, others a list or an object of images, of which the first is looked at."""
    if isinstance(content, dict) and "images" in content:
        return None
    inner = content.values() if isinstance(content, dict) else content
    first = next(iter(inner), None) if isinstance(inner, Iterable) else None
    for entry in (content, first):
        if not isinstance(entry, dict) or "image_id" in entry:
            continue
        for keys, program in TOOLS:
            if keys <= entry.keys():
                return f"is an annotation of {program}; export COCO JSON with masks there, and give that"
        for keys, what, mend in OTHERS:
            if keys <= entry.keys():
                return f"holds {what}; {mend}"
    return None


def of_annotations(annotations: object) -> str | None:
    """What a section of annotations holds in place of masks, told by the first, and the mend; None for masks."""
    first = _first(annotations)
    if "segmentation" in first:
        return None
    if "segments_info" in first:
        return "holds panoptic segments; give the masks that ovtool convert --to coco makes of them"
    if "caption" in first:
        return "is a COCO JSON of captions, which ovtool mine-pairs and train-pacl read"
    return None


def instead_of_captions(annotations: object) -> str | None:
    """What a section of annotations holds in place of captions, told by the first, and the mend; None for captions."""
    first = _first(annotations)
    what = next((what for key, what in _NO_CAPTIONS if key in first), None)
    if what is None or "caption" in first:
        return None
    more = ", or masks with names to tune-prompts as they are" if what == "masks" else ""
    return f"holds {what} and no captions; give a COCO JSON or a table of captions{more}"


def _first(entries: object) -> Mapping[str, object]:
    """The first entry of a list if that is an object, else an empty one."""
    first = next(iter(entries), None) if isinstance(entries, Iterable) else None
    return first if isinstance(first, dict) else {}


def of_tensors(kind: str) -> str:
    """What a safetensors file of a kind holds, and which command reads it."""
    if kind not in TENSORS:
        return f"is of kind {kind}"
    what, _, reader = TENSORS[kind]
    return f"holds {what}, which ovtool {reader} reads"


def needed(kinds: Sequence[str]) -> str:
    """What is needed in place of a wrong file, and what makes it."""
    known = [TENSORS[kind] for kind in kinds if kind in TENSORS]
    if not known:
        return f"needed here is one of kind {' or '.join(kinds)}"
    return "needed here: " + " or ".join(f"{what}, made by ovtool {by}" for what, by, _ in known)


def of_json(path: Path) -> str | None:
    """What a file of JSON is, and which command reads it; None where it is none, or not known. Of a long file no more
    is read than what stands before its images."""
    try:
        with open(path, "rb") as handle:
            if handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
                return None
        if path.stat().st_size > _LONG:
            content = json_sections.glimpse(path, "images", ("info",))
        else:
            content = strict_json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return None
    if content is None:
        return None
    if not isinstance(content, dict) or "images" not in content:
        return "is JSON"
    info = content.get("info")
    made_by = info.get("ovtool") if isinstance(info, dict) else None
    command = made_by.get("command") if isinstance(made_by, dict) else None
    if isinstance(command, str) and command in COCO:
        what, reader = COCO[command]
        return f"is {what}, which ovtool {reader} reads"
    return "is a COCO JSON"


def of_bytes(data: bytes) -> str | None:
    """What the content of a safetensors file is, and which command reads it; None where it is none."""
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" or length > len(data) - 8:
        return None
    try:
        outer = strict_json.loads(data[8 : 8 + length].decode())
        header = strict_json.loads(outer["__metadata__"]["ovtool"])
        return of_tensors(str(header["kind"]))
    except (ValueError, KeyError, TypeError):
        return "is a safetensors file"
