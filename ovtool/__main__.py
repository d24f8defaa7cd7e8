"""`python -m ovtool`, which is also what the `ovtool` script calls (torchrun needs it)."""

import os
import sys

MAPPED, TRIMMED = 1 << 28, 1 << 29  # bytes: smaller pieces come from the heap, which keeps so much
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h


def main() -> int:
    """Runs the command line on `sys.argv` and returns its exit status."""
    # threads that have no work sleep: where a processor is shared, those that wait awake take the time of
    # those that work (up to half of a run)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _reuse_memory()
    from ovtool.cli.errors import run

    return run()


def _reuse_memory() -> None:
    """Keeps freed memory for the next layer of a network, and asks for it in large pages, on Linux with glibc.

    Memory that is returned to the system and asked for again in each layer takes a quarter of the time of a
    network on a CPU. What the user sets in the environment holds.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch
    wanted = {
        "MALLOC_MMAP_THRESHOLD_": (_M_MMAP_THRESHOLD, MAPPED),
        "MALLOC_TRIM_THRESHOLD_": (_M_TRIM_THRESHOLD, TRIMMED),
    }
    import ctypes

    library = ctypes.CDLL(None)
    for name, (parameter, size) in wanted.items():
        if name not in os.environ and hasattr(library, "mallopt"):
            os.environ[name] = str(size)  # for the processes that this one starts
            library.mallopt(parameter, size)


if __name__ == "__main__":
    sys.exit(main())
