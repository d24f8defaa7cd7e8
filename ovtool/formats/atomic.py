"""Files that appear whole or not at all.

Everything is written to ``.<name>.<random>.tmp`` in the folder of the target, synced, and renamed
over the target, so a reader never meets half a file, whenever the writer was stopped.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ovtool.errors import InputError, OutputExistsError, UsageError

_MENDS = {
    errno.ENOSPC: "the disk is full; free some space, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space, or write elsewhere",
    errno.EFBIG: "the file system takes no file this large; write elsewhere",
    errno.EIO: "the disk reports an input/output error; write elsewhere",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.ENAMETOOLONG: "the file name is too long; choose a shorter one",
    errno.ENOENT: "its folder does not exist; make it with mkdir -p",
    errno.ENOTDIR: "its folder is not a folder; choose another place",
    errno.EISDIR: "it is a folder; give the name of a file",
}
_SCRATCH = "ovtool-scratch-"
_JUST_MADE = 60.0  # seconds
# what the disk says while bytes are written, as against errors of whoever makes the bytes
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def check_outputs(paths: Sequence[Path], overwrite: bool) -> None:
    """`check_output` of all that one command writes.

    Raises:
        UsageError: two of them are one file, such as a curve drawn in ``x.png`` beside an output of
            that name.
        OutputExistsError, InputError: as ``check_output``.
    """
    check_distinct(paths)
    for path in paths:
        check_output(path, overwrite)


def check_distinct(paths: Sequence[Path]) -> None:
    """Raise UsageError where two outputs of one command are one file."""
    seen: set[str] = set()
    for path in paths:
        place = os.path.realpath(path)
        if place in seen:
            raise UsageError(f"{path} would hold two outputs of this command; name another file")
        seen.add(place)


def check_output(path: Path, overwrite: bool) -> None:
    """Refuses an output that cannot or must not be written, before any work is done for it, and removes what
    killed writers of it left.

    ``-`` (stdout), devices and pipes pass.

    Raises:
        OutputExistsError: it is there already, and ``overwrite`` is False.
        InputError: it is a folder, or its folder is missing or cannot be written to.
    """
    path = Path(path)
    if str(path) == "-" or is_special(path):
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; replace it with --overwrite, or name another")
    check_folder(path, path.absolute().parent)
    remove_stale(path)


def check_folder(path: Path, folder: Path) -> None:
    """Raises InputError where a folder is not there or takes no file; `path` is what is to be written in it."""
    if not folder.exists():
        raise InputError(f"cannot write {path}: no folder {folder}; make it with mkdir -p")
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: {folder} is a file; name another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: no permission to write in {folder}")


def above(folder: Path) -> Path:
    """A folder, or the first above it that is there, which is where it would be made."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from others, whatever links lead to it; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it; one that exists is fine. Raises InputError."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"cannot make the folder {folder}: a file has that name") from None
    except OSError as error:
        raise input_error(folder, error) from error


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes ``path`` when the block ends well, and leaves no trace otherwise.

    A link is written through, so its target is what is replaced. Devices, pipes and stdout (``-``) are
    written to directly. The temporary file is locked while it lives, which is how ``remove_stale`` tells it
    from one whose writer was killed.

    Raises:
        InputError: the disk is full, or the place cannot be written. Errors that the block itself
            raises pass unchanged, and the temporary file is removed for them as well.
    """
    path = Path(path)
    if str(path) == "-":
        yield _stdout()
        sys.stdout.flush()
        return
    if is_special(path):
        with open(path, "wb") as device:
            yield device
        return
    target = Path(os.path.realpath(path))
    temporary, in_block = None, False
    try:
        temporary, file = _locked_file(target)
        with file as handle:
            in_block = True
            yield handle
            in_block = False
            handle.flush()
            os.fsync(handle.fileno())
            if os.name != "nt":  # where nothing open can be renamed, nor needs its lock
                _replace(temporary, target)
        if os.name == "nt":
            _replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (not in_block or error.errno in _DISK):
            raise input_error(path, error) from error
        raise
    _sync_folder(target.parent)


def _locked_file(target: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file beside a target, open and locked. Another run may remove it before it is locked, as one
    that a killed writer left; then it is another one."""
    for _ in range(3):
        temporary = target.parent / f"{beginning(target)}{secrets.token_hex(6)}.tmp"
        file = open(temporary, "xb")
        if lock(file.fileno()) and (os.name == "nt" or temporary.exists()):
            break
        if temporary.exists():  # a file system without locks
            break
        file.close()
    return temporary, file


def _replace(temporary: Path, target: Path) -> None:
    """Gives a temporary file the name of its target."""
    if target.is_dir():  # os.replace would speak of the temporary file
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    os.replace(temporary, target)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file atomically. Raises InputError as ``writing`` does."""
    with writing(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 text file atomically, with its line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def remove_stale(path: Path) -> int:
    """Removes what killed writers of ``path`` left in its folder; the number of files removed.

    A temporary file that a living process still writes is locked, and stays.
    """
    with suppress(OSError):
        return sum(_remove_unused(left) for left in temporaries(path))
    return 0


def temporaries(path: Path) -> list[Path]:
    """What writers of ``path`` write to, or left, in its folder."""
    target = Path(os.path.realpath(path))
    name = re.compile(re.escape(beginning(target)) + r"[^\W_]+\.tmp")
    with os.scandir(target.parent) as entries:
        return [target.parent / entry.name for entry in entries if name.fullmatch(entry.name)]


def remove_stale_below(folder: Path) -> None:
    """Removes what killed writers of any file left below a folder."""
    for left in folder.rglob("*.tmp"):
        if is_temporary(left):
            _remove_unused(left)


def is_temporary(path: Path) -> bool:
    """Whether a file has a name as those that are written before they get theirs."""
    return re.fullmatch(r"\..*\.[0-9a-f]{12}\.tmp", path.name, re.S) is not None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in `TMPDIR` for as long as the block lasts. Those that killed processes left there are removed first,
    which are told by their locks, as temporary files are."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        _remove_left(left)
    try:
        scratch = tempfile.TemporaryDirectory(prefix=_SCRATCH)
    except OSError as error:
        raise temporary_error(error) from None
    with scratch as name, _locked(Path(name)):
        yield Path(name)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """A lock on a folder; whether it is held by this process, which it never is on Windows, where no folder can be
    opened: what is left there stays."""
    if os.name == "nt":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _remove_left(folder: Path) -> None:
    """Removes a scratch folder of a process that is no more; one just made may not be locked yet."""
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime > _JUST_MADE:
            with _locked(folder) as is_unused:
                if is_unused:
                    shutil.rmtree(folder)


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: keys sorted, no spaces, UTF-8 kept as it is.

    Equal values give equal text, so it can be hashed. Floats are rounded by the caller.

    Raises:
        ValueError: a float is NaN or infinite, which JSON cannot say.
        TypeError: a value that is no JSON, such as a numpy number.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def plain_json(value: Any) -> str:
    """``canonical_json`` with the keys in the order that they have."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def input_error(path: Path, error: OSError) -> InputError:
    """The error, with the mend, for a place that cannot be written."""
    mend = _MENDS.get(error.errno or 0, error.strerror or type(error).__name__)
    return InputError(f"cannot write {path}: {mend}")


def temporary_error(error: OSError, folder: Path | None = None) -> InputError:
    """The error, with the mend, where no temporary file can be written; None is the folder of such files."""
    return InputError(
        f"cannot keep temporary files in {folder or tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR "
        "to a folder with more room"
    )


def is_special(path: Path) -> bool:
    """Whether ``path`` is a device, pipe or socket: something that a rename would destroy."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def require_file(path: Path) -> None:
    """Raises InputError for a pipe or a device, which one might wait for without end."""
    if is_special(path):
        raise InputError(f"{path} is a pipe or a device, and no file; name a file, or remove it")


def _stdout() -> BinaryIO:
    """Where bytes for stdout go. Raises InputError where it is closed."""
    if sys.stdout is None:
        raise InputError("standard output is closed, so there is nowhere to write; name a file")
    return sys.stdout.buffer


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot, and then there is nothing to do
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Locks an open file, if nobody holds it; whether it is locked now.

    Windows has no such locks, and needs none: there a file that is open cannot be removed.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def beginning(target: Path) -> str:
    """How the names of the hidden files of a target begin; no name may have more than 255 bytes."""
    name = os.fsencode(target.name)
    if len(name) <= 255 - len(f"..{12 * '0'}.tmp"):
        return f".{target.name}."
    return f".{hashlib.sha256(name).hexdigest()[:32]}."


def _remove_unused(temporary: Path) -> bool:
    """Removes a temporary file unless a living writer holds its lock; whether it did."""
    try:
        if os.name == "nt":
            temporary.unlink()
            return True
        with open(temporary, "rb") as handle:
            is_unused = lock(handle.fileno())
            if is_unused:  # nobody can lock it between the two
                temporary.unlink()
    except OSError:
        return False
    return is_unused
