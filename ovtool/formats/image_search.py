"""The images that files, folders and lists on stdin stand for."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ovtool.errors import InputError
from ovtool.formats import coco_checks as checks
from ovtool.formats import plain_text, remote
from ovtool.formats.images import HEIC_MEND, HEIC_SUFFIXES, ImageItem, has_heic, is_result

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm",
    ".pgm", ".jp2", ".avif",
)  # fmt: skip
RESULT_KIND = "drawn by ovtool"
# what people take for images, or take images from; a folder that holds such is worth a warning
_OTHER_MEDIA = (
    *HEIC_SUFFIXES, ".jxl", ".svg", ".psd", ".tga", ".ico", ".exr", ".hdr", ".dcm", ".pdf", ".dng",
    ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".mp4", ".mov", ".avi", ".mkv", ".webm",
)  # fmt: skip

# made by macOS in archives, by Synology and QNAP for small copies of images, and by Windows
_OF_SYSTEMS = ("__MACOSX", "@eaDir", ".@__thumb", "$RECYCLE.BIN", "System Volume Information")

_logger = logging.getLogger("ovtool")


def find_images(inputs: Sequence[str]) -> list[ImageItem]:
    """The images that files, folders and ``-`` stand for: a list of names on stdin, one a line or, as
    ``find -print0`` writes them, parted by zero bytes.

    Folders are searched with all below them, hidden ones aside, in the order of their names; an
    image of a folder is named by its path from there, a single file by its own name. Where two
    would have one name, all are named from the deepest folder that holds them all. An image given
    twice counts once. One line of the log counts the other files of the folders by their suffix; what
    ovtool drew itself (`is_result`) is such a file, so that no run reads the results of another. A name
    on stdin of which there is no file stays in the list, for the run to count as failed.

    Raises:
        InputError: nothing there, a folder with no image, or a name that COCO JSON cannot hold.
    """
    items: list[ImageItem] = []
    left_out: Counter[str] = Counter()
    for given, is_listed in _listed(inputs):
        path = Path(given)
        if path.is_dir():
            names = _walk(path, left_out)
            if not names:
                rest = f"; it has {_counted(left_out)}" if left_out else ""
                raise InputError(f"no image in {path}: it holds no {' '.join(_suffixes())}{rest}")
            items += [ImageItem(path / name, name) for name in sorted(names)]
        elif is_listed or path.exists():
            items.append(ImageItem(path, path.name))
        else:
            raise InputError(f"no such file or folder: {given}")
    _say_left_out(left_out)
    drawn = [given for given in map(str, inputs) if given != "-" and is_result(Path(given))]
    if drawn:
        _logger.warning(
            "%d of the images given were drawn by ovtool (the first is %s); they are read, since they are named",
            len(drawn), drawn[0],
        )  # fmt: skip
    once = {os.path.realpath(item.path): item for item in reversed(items)}
    if len(once) < len(items):
        _logger.warning("%d images were given more than once", len(items) - len(once))
        kept = {id(item) for item in once.values()}
        items = [item for item in items if id(item) in kept]
    if len({item.name for item in items}) < len(items):
        items = _named_from_common_folder(items)
    for item in items:
        if fault := checks.file_name_fault(item.name):
            raise InputError(f"{str(item.path)!r} {fault}; rename it")
    return items


def has_image(folder: str) -> bool:
    """Whether a file with the suffix of an image lies in a folder or below it."""
    suffixes = _suffixes()
    return any(name.lower().endswith(suffixes) for *_, files in os.walk(folder) for name in files)


def _listed(inputs: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What is given, and whether it is of a list on stdin."""
    for given in inputs:
        if str(given) != "-":
            yield str(given), False
            continue
        names = _names_on_stdin()
        if not names:
            raise InputError("no image names on standard input; give one a line")
        yield from ((_here(name), True) for name in names)


def _here(name: str) -> str:
    """A name on stdin, which may be the address of an object store, as a place of this machine."""
    address = remote.address(name)
    return name if address is None else str(remote.local(address))


def _names_on_stdin() -> list[str]:
    data = plain_text.of_stdin().removeprefix(b"\xef\xbb\xbf")
    lines = (
        data.split(b"\0") if b"\0" in data else [line.rstrip(b"\r") for line in data.split(b"\n")]
    )
    return [os.fsdecode(line) for line in lines if line]


def _walk(root: Path, left_out: Counter[str]) -> list[str]:
    """Relative POSIX names of the images below a folder; links to folders are followed once. Other files
    are counted in ``left_out`` by suffix, and folders that systems make by their names."""
    names: list[str] = []
    seen = {os.path.realpath(root)}
    folders = [root]
    suffixes = _suffixes()
    while folders:
        folder = folders.pop()
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError as error:
            raise InputError(f"cannot read the folder {folder}: {error.strerror}") from None
        for entry in entries:
            path = folder / entry.name
            if path.is_dir() and entry.name in _OF_SYSTEMS:
                left_out[f"of {entry.name}"] += 1
            elif path.is_dir():
                if os.path.realpath(path) not in seen:
                    seen.add(os.path.realpath(path))
                    folders.append(path)
            elif (
                not path.is_file()
            ):  # a pipe, which would be waited for, or a link that leads nowhere
                left_out["that are no files"] += 1
            elif is_result(path):
                left_out[RESULT_KIND] += 1
            elif path.suffix.lower() in suffixes:
                names.append(path.relative_to(root).as_posix())
            else:
                left_out[path.suffix.lower()] += 1
    return names


def _say_left_out(left_out: Counter[str]) -> None:
    """One line of what a search passed over: a warning where it is images or films of another kind."""
    if not left_out:
        return
    media = (*_OTHER_MEDIA, RESULT_KIND)
    level = logging.WARNING if any(s in media for s in left_out) else logging.INFO
    hint = f" ({HEIC_MEND})" if any(s in HEIC_SUFFIXES for s in left_out) else ""
    _logger.log(level, "left out: %s%s", _counted(left_out), hint)


def _counted(left_out: Counter[str]) -> str:
    """Suffixes and how often each is there, as ``3 .heic, 1 .mp4``."""
    ranked = sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in ranked)


def _suffixes() -> tuple[str, ...]:
    """The suffixes of images that can be read here."""
    return (*SUFFIXES, *HEIC_SUFFIXES) if has_heic() else SUFFIXES


def _named_from_common_folder(items: list[ImageItem]) -> list[ImageItem]:
    absolute = [Path(os.path.abspath(item.path)) for item in items]
    try:
        root = os.path.commonpath([path.parent for path in absolute])
    except ValueError:
        raise InputError(
            "images on different drives have the same names; give them in separate runs"
        ) from None
    return [
        ImageItem(item.path, path.relative_to(root).as_posix())
        for item, path in zip(items, absolute, strict=True)
    ]
