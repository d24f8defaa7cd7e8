"""One writer at a time: a locked file beside an output, which names the process that writes it.

The lock ends with its process, however that ends, so a file that a killed run left is no lock.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from weakref import WeakValueDictionary

from ovtool.errors import OutputExistsError
from ovtool.formats import atomic

_HELD: WeakValueDictionary[Path, "Lock"] = WeakValueDictionary()  # by this process


class Lock:
    """The right to write an output, until it is released.

    Args:
        path: The output.

    Raises:
        OutputExistsError: Another process writes it; the message says which.
        InputError: The lock cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        target = Path(os.path.realpath(path))
        self._place = target.parent / f"{atomic.beginning(target)}lock"
        if (own := _HELD.pop(self._place, None)) is not None:
            own.release()  # of a run of this process that ended in an error
        while self._descriptor is None:
            self._descriptor = self._taken(path)
        _HELD[self._place] = self
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise atomic.input_error(path, error) from error

    def _taken(self, path: Path) -> int | None:
        """The locked file; None where it has to be tried again."""
        try:
            descriptor = os.open(self._place, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise atomic.input_error(path, error) from error
        is_locked = atomic.lock(descriptor)
        is_current = atomic.identity(self._place) == _identity(descriptor)
        if is_locked and is_current:
            return descriptor
        owner = os.pread(descriptor, 300, 0).decode("utf-8", "replace").split()
        os.close(descriptor)
        if is_current and not _may_live(owner):
            # its own process was killed, and the workers that it began still hold the file
            self._place.unlink(missing_ok=True)
        elif is_current:
            who = f"process {owner[0]} on {owner[1]}" if len(owner) == 2 else "another process"
            raise OutputExistsError(
                f"{path} is being written by {who}; wait until it is done, or write to another file"
            )
        return None

    def release(self) -> None:
        """Gives the output free."""
        if self._descriptor is not None:
            with suppress(OSError):
                self._place.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.release()

    __del__ = release


@contextmanager
def held(*places: str | Path | None) -> Iterator[None]:
    """The right to write files and folders for as long as the block lasts. None, stdout (`-`), devices and pipes are
    passed over. What was checked before must be checked again where it is written, as another run may have ended by then.

    Raises as `Lock` does.
    """
    with ExitStack() as locks:
        for place in places:
            if place is not None and str(place) != "-" and not atomic.is_special(Path(place)):
                locks.enter_context(Lock(Path(place)))
        yield


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _may_live(owner: list[str]) -> bool:
    """Whether a process may still be there; one of another machine always may."""
    if len(owner) != 2 or not owner[0].isdecimal() or owner[1] != socket.gethostname():
        return True
    try:
        os.kill(int(owner[0]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
