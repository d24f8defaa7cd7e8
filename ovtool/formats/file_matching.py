"""Which file belongs to which: images and their label maps, maps or predictions, by their names.

There is one order for the whole tool. A file is first looked for under the same relative path, then under
the same path without its ending (``x/a.png`` for ``x/a.jpg``), and last where the whole of one path ends
the other (``a.png`` for ``x/a.jpg``); so ``x/a.png`` is never taken for ``y/a.jpg``. Where two files could
be meant, or two names would be given one file, nothing is guessed: that is an error. The two forms of an
accented letter in Unicode are one: macOS writes names in another form than most JSON has.

Only where all of this finds nothing are label maps looked for that add one and the same ending to the names of
their images, as CamVid's ``a_L.png`` for ``a.png`` (`ADDED`); a warning says so.
"""

import logging
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ovtool.errors import InputError, UsageError

RUNGS = ("name", "stem", "ending")
ADDED = ("addition",)
_logger = logging.getLogger("ovtool")


def folder_of(images: Path | None, source: str | Path, option: str = "--coco") -> Path:
    """The folder that the file names in a file start from.

    Args:
        images: What `--images` names.
        source: The file.
        option: What names the file, in messages.

    Raises:
        UsageError: No folder is given.
        InputError: It is not there.
    """
    if images is None:
        raise UsageError(f"{option} needs --images DIR, the folder that its file names start from")
    if not images.is_dir():
        raise InputError(f"no such folder: {images}; --images is where the names of {source} start")
    return images


@dataclass(frozen=True)
class Names:
    """Relative file names with forward slashes.

    source: what errors call them. bare: whether they are already without their endings.
    """

    source: str
    names: Sequence[str]
    bare: bool = False

    def stem(self, name: str) -> str:
        """A name without its ending, in one form of Unicode."""
        return _composed(name if self.bare else image_stem(name))


def match(wanted: Names, there: Names, rungs: Sequence[str] = RUNGS) -> dict[str, str]:
    """The name of `there` for each name of `wanted` that has one.

    Args:
        rungs: the ways to compare names, of RUNGS or ADDED, the strictest first. What has a match on one rung is
            not looked at on the next, and its match is not given again there.

    Raises:
        InputError: two names of `there` that could be meant by one, or one that two would be given.
    """
    given: dict[str, str] = {}
    for rung in rungs:
        taken = set(given.values())
        left = [name for name in there.names if name not in taken]
        candidates = _CANDIDATES[rung](wanted, there, left)
        owner: dict[str, str] = {}
        for name in wanted.names:
            options = [] if name in given else candidates(name)
            if not options:
                continue
            if len(options) > 1:
                raise InputError(
                    f"{there.source}: '{options[0]}' and '{options[1]}' could both be meant by "
                    f"'{name}' of {wanted.source}; rename one of them, or keep them in folders apart"
                )
            if options[0] in owner:
                raise InputError(
                    f"{wanted.source}: '{owner[options[0]]}' and '{name}' cannot be told apart: both "
                    f"would be given '{options[0]}' of {there.source}; rename one of them, or keep "
                    "files in the same folders on both sides"
                )
            owner[options[0]] = name
            given[name] = options[0]
    return given


def image_stem(name: str) -> str:
    """A relative file name without its ending; what names no file stays as it is."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.name else name


Candidates = Callable[[str], list[str]]


def _by_name(wanted: Names, there: Names, left: Iterable[str]) -> Candidates:
    known = set(left)
    by_form = _grouped(left, _composed)
    return lambda name: [name] if name in known else list(by_form.get(_composed(name), ()))


def place(folder: Path, name: str) -> Path | None:
    """The file of a relative name in a folder, in whichever form of Unicode it is there, or written as in an
    address (``my%20image.jpg``, as exporters that serve images do); None if it is not there."""
    forms = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    plain = unquote(name)
    if plain.count("/") == name.count("/") and "\0" not in plain and ".." not in plain.split("/"):
        forms.append(plain)
    paths = (folder / form for form in dict.fromkeys(forms))
    return next((path for path in paths if os.path.exists(path)), None)  # False for a name too long


def path_of(folder: Path, name: str) -> Path:
    """The path of a relative name in a folder: that of its file (`place`), or as it is where none is there."""
    if name.isascii() and "%" not in name:
        return folder / name  # which has one form, so that nothing need be looked for
    return place(folder, name) or folder / name


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _by_stem(wanted: Names, there: Names, left: Iterable[str]) -> Candidates:
    by_stem = _grouped(left, there.stem)
    return lambda name: list(by_stem.get(wanted.stem(name), ()))


def _by_ending(wanted: Names, there: Names, left: Iterable[str]) -> Candidates:
    by_last = _grouped(left, lambda name: there.stem(name).rpartition("/")[2])

    def candidates(name: str) -> list[str]:
        stem = wanted.stem(name)
        options = by_last.get(stem.rpartition("/")[2], ())
        return [other for other in options if _ends(stem, there.stem(other))]

    return candidates


def _by_addition(wanted: Names, there: Names, left: Iterable[str]) -> Candidates:
    by_stem = _grouped(left, there.stem)
    own = [wanted.stem(name) for name in wanted.names]
    for longer, shorter in ((own, list(by_stem)), (list(by_stem), own)):
        if ending := _addition(longer, frozenset(shorter)):
            _logger.warning("label maps are named as their images with '%s' added", ending)
            if longer is own:
                return lambda name: by_stem.get(wanted.stem(name).removesuffix(ending), [])
            return lambda name: by_stem.get(wanted.stem(name) + ending, [])
    return lambda name: []


def _addition(longer: Sequence[str], shorter: Collection[str]) -> str:
    """What ends all names of one side, from a sign between words on, and is not in those of the other; or nothing."""
    first = longer[0] if longer else ""
    endings = (first[place:] for place, sign in enumerate(first) if place and sign in "_-. ")
    for ending in endings:
        if all(name.endswith(ending) for name in longer):
            if any(name.removesuffix(ending) in shorter for name in longer):
                return ending
    return ""


def _ends(first: str, second: str) -> bool:
    """Whether the whole of one path ends the other."""
    return f"/{first}".endswith(f"/{second}") or f"/{second}".endswith(f"/{first}")


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> Mapping[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


_CANDIDATES = {
    "name": _by_name,
    "stem": _by_stem,
    "ending": _by_ending,
    "addition": _by_addition,
}
