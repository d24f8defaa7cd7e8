"""Folders that appear whole or not at all, and say what made them.

What is written lies in a hidden folder beside the target until it is complete; then it takes the target's
place. ``ovtool.json`` in it holds the provenance; a folder without it is never replaced.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ovtool.errors import InputError, OutputExistsError
from ovtool.formats import atomic

MANIFEST = "ovtool.json"


def check(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that cannot or must not be written, before any work is done for it, and removes what
    killed writers of it left.

    Raises:
        OutputExistsError: It holds something, and `overwrite` is False, or what it holds was not written as a
            whole.
        InputError: Its place cannot be written to.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise OutputExistsError(
                f"{folder} is not empty; replace it with --overwrite, or name another"
            )
        if not (folder / MANIFEST).is_file():
            raise OutputExistsError(
                f"{folder} has no {MANIFEST}, and so was not written by this command; name another folder"
            )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder")
    atomic.check_folder(folder, folder.absolute().parent)
    for left in atomic.temporaries(folder):
        if left.is_dir() and _is_unused(left):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def writing(folder: Path, provenance: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when the block ends well, and leaves no trace
    otherwise.

    provenance: What `ovtool.json` holds of the writer.

    Raises InputError where the place cannot be written.
    """
    target = Path(os.path.realpath(folder))
    temporary = target.parent / f"{atomic.beginning(target)}{secrets.token_hex(6)}.tmp"
    try:
        temporary.mkdir()
        with open(temporary / MANIFEST, "xb") as manifest:
            atomic.lock(manifest.fileno())
            yield temporary
            manifest.write(atomic.canonical_json({"ovtool": dict(provenance)}).encode() + b"\n")
            manifest.flush()
            os.fsync(manifest.fileno())
        _replace(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise atomic.input_error(folder, error) from error
        if type(error) is InputError:  # which the user is to read without a hidden name
            raise InputError(str(error).replace(str(temporary), str(folder))) from error
        raise


def place(folder: Path, name: str) -> Path:
    """A file below a folder, the folders above it made."""
    path = folder / name
    atomic.make_folder(path.parent)
    return path


def _replace(temporary: Path, target: Path) -> None:
    old = temporary.with_name(temporary.name.removesuffix(".tmp") + "0.tmp")
    if target.is_dir():
        os.replace(target, old)
    try:
        os.replace(temporary, target)
    except OSError:
        with suppress(OSError):
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_unused(temporary: Path) -> bool:
    """Whether no living writer holds the lock of a folder."""
    try:
        with open(temporary / MANIFEST, "rb") as manifest:
            return atomic.lock(manifest.fileno())
    except FileNotFoundError:
        return True
    except OSError:
        return False
