"""Files on object stores (`s3://`, `gs://`, `hf://`, ...), kept in a cache on this machine while they are worked on.

`fsspec` (the extra `remote`) opens them, by the package of each store: s3fs, gcsfs, huggingface_hub, adlfs. What is
read is fetched once, and again only where its size, its etag or its time has changed. What is written is made in the
cache, and copied when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from ovtool.errors import InputError, OutputExistsError
from ovtool.formats import atomic, cache

SCHEMES = ("s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "memory")
Stamps: TypeAlias = dict[str, list[Any]]  # path below the address -> what changes with the file
# a `Path` of an address has lost one of its slashes
_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(?=[^/])(.+)", re.DOTALL)
_CHANGES = (
    "ETag", "etag", "LastModified", "mtime", "last_modified", "updated", "created", "blob_id",
)  # fmt: skip


def address(name: object) -> str | None:
    """The address that a text or a path is, with both of its slashes; None for a file of this machine."""
    match = _ADDRESS.fullmatch(str(name)) if isinstance(name, str | Path) else None
    return None if match is None else f"{match[1]}://{match[2]}"


def local(name: str) -> Path:
    """The file or folder of an address, fetched into the cache where it is not there yet or has changed.

    Raises:
        InputError: there is nothing, or it cannot be read or kept; or a package is missing.
    """
    system, path = _opened(name)
    home = cache.folder() / "remote" / _digest(name)
    target, listing = home / PurePosixPath(path).name, home.with_suffix(".json")
    known = _known(listing)
    try:
        files = _files(system, path)
        if not files:
            raise FileNotFoundError
        for inner, stamp in files.items():
            place = _inside(target, inner)
            if known.get(inner) != stamp or not place.is_file():
                known.pop(inner, None)
                _fetch(system, f"{path}/{inner}" if inner else path, place)
                known[inner] = stamp
        for inner in known.keys() - files.keys():
            _inside(target, inner).unlink(missing_ok=True)
            del known[inner]
    except FileNotFoundError:
        raise InputError(f"no such file or folder: {name}") from None
    except Exception as error:  # the clients of stores have no error in common
        raise InputError(f"cannot fetch {name}: {_line(error)}") from None
    finally:
        cache.write_bytes(listing, json.dumps(known).encode())
    return target


def _files(system: Any, path: str) -> Stamps:
    """The files of a path, by their names from there; that of a single file is empty."""
    info = system.info(path)
    if info["type"] == "file":
        return {"": _stamp(info)}
    below = system.find(path, detail=True)
    names = {place: place[len(path) :].lstrip("/") for place in below}
    is_file = {place: names[place] and not place.endswith("/") for place in below}
    return {names[place]: _stamp(info) for place, info in below.items() if is_file[place]}


def _known(listing: Path) -> Stamps:
    """What was fetched before; nothing where the list is damaged."""
    try:
        known = json.loads(cache.read_text(listing) or "{}")
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def staged(name: str, overwrite: bool) -> Path:
    """Where the output of an address is made: always the same place, so that a run that was cut off goes on.

    Raises:
        OutputExistsError: it is there, and `overwrite` is False.
        InputError: it cannot be looked for; or a package is missing.
    """
    system, path = _opened(name)
    try:
        exists = system.exists(path)
    except Exception as error:
        raise InputError(f"cannot look for {name}: {_line(error)}") from None
    if exists and not overwrite:
        raise OutputExistsError(f"{name} exists; replace it with --overwrite, or name another")
    home = cache.folder() / "made" / _digest(name)
    atomic.make_folder(home)
    return home / PurePosixPath(path).name


def deliver(name: str, made: Path) -> int:
    """Copies what was made for an address, and removes it here; parts stay.

    Args:
        name: the address.
        made: as `staged` gave it: a file, with what the command wrote beside it, or a folder.

    Returns:
        The number of files that were written, the output of the command last.

    Raises:
        InputError: one cannot be written; all files stay here, and the message says where.
    """
    system, path = _opened(name)
    beside = PurePosixPath(path).parent
    whole = [entry for entry in made.parent.iterdir() if not _is_kept(entry)]
    whole.sort(key=lambda entry: entry == made)
    written = 0
    try:
        for entry in whole:
            for file in sorted(entry.rglob("*")) if entry.is_dir() else [entry]:
                if file.is_file():
                    there = str(beside / file.relative_to(made.parent).as_posix())
                    system.put_file(str(file), there)
                    written += 1
    except Exception as error:
        raise InputError(f"cannot write {name}: {_line(error)}; it is kept as {made}") from None
    for entry in whole:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return written


def _is_kept(entry: Path) -> bool:
    """Whether a file beside an output is for a run that goes on."""
    return entry.name.startswith(".") or entry.suffix in (".parts", ".checkpoint", ".lock")


def _opened(name: str) -> tuple[Any, str]:
    """The file system of an address, and the path on it."""
    scheme = name.partition(":")[0]
    try:
        import fsspec
    except ImportError:
        raise InputError(
            f"{name} needs fsspec; install it with pip install 'ovtool[remote]'"
        ) from None
    try:
        system, path = fsspec.core.url_to_fs(name, **_options(scheme))
    except ImportError as error:
        raise InputError(f"{name} cannot be opened: {_line(error)}") from None
    except Exception as error:
        raise InputError(f"cannot open {name}: {_line(error)}") from None
    return system, path.rstrip("/")


def _options(scheme: str) -> Mapping[str, Any]:
    """What a store is opened with: a listing is never one of an earlier command."""
    return {} if scheme == "memory" else {"use_listings_cache": False}


def _stamp(info: Mapping[str, Any]) -> list[Any]:
    return [info.get("size"), *(str(info[key]) for key in _CHANGES if info.get(key) is not None)]


def _inside(target: Path, inner: str) -> Path:
    """The place of a file below a folder. Raises ValueError for a name that leaves it."""
    if ".." in PurePosixPath(inner).parts or "\\" in inner or "\0" in inner:
        raise ValueError(f"{inner!r:.80} is no path of a file below it; rename it")
    return target / inner if inner else target


def _fetch(system: Any, path: str, target: Path) -> None:
    """One file, whole or not at all."""
    atomic.make_folder(target.parent)
    with atomic.writing(target) as handle, system.open(path, "rb") as source:
        shutil.copyfileobj(source, handle, 1 << 20)


def _digest(name: str) -> str:
    return hashlib.sha256(name.rstrip("/").encode()).hexdigest()[:16]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
