"""How much memory is left, and work that ends with an error where it asks for more, before the system kills it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# version 2, and the memory of version 1: the folder, its limit, and what is used
_FILES = (
    (_GROUPS, "memory.max", "memory.current"),
    (_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available() -> int | None:
    """Bytes that the machine, and the control group of this process, can still give; None where the system does not
    say (it is no Linux)."""
    try:
        free = _kilobytes(Path("/proc/meminfo"), "MemAvailable", "SwapFree")
    except OSError:
        return None
    return min([free, *_left_in_groups()])


@contextmanager
def bounded() -> Iterator[int | None]:
    """Inside, memory beyond what is available at the start is refused, as `MemoryError` or as torch's error, where the
    system would promise it, and then kill the process. Gives what is available; on other systems than Linux nothing is
    refused."""
    left = available()
    if left is None:
        yield None
        return
    resource = importlib.import_module("resource")  # which Windows lacks
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _kilobytes(Path("/proc/self/status"), "VmData") + left
    if before != resource.RLIM_INFINITY:
        limit = min(limit, before)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield left
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def _kilobytes(path: Path, *names: str) -> int:
    """The sum of some lines of a table of the system, `Name: 12 kB`, in bytes."""
    table = dict(re.findall(r"(\w+):\s+(\d+) kB", path.read_text()))
    return 1024 * sum(int(table.get(name, 0)) for name in names)


def _left_in_groups() -> Iterator[int]:
    """What the control groups of this process leave it, those above them too. Pages of files are given back."""
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, limit, used = _FILES[bool(controllers)]
            own = PurePosixPath(place.lstrip("/"))
            for group in {root, *(root / above for above in (own, *own.parents))}:
                with suppress(OSError, ValueError):  # `max`, or a group of another machine's view
                    most, now = (int((group / name).read_text()) for name in (limit, used))
                    pages = re.search(
                        r"^(?:total_)?inactive_file (\d+)",
                        (group / "memory.stat").read_text(),
                        re.M,
                    )
                    yield max(0, most - now + (int(pages[1]) if pages else 0))
