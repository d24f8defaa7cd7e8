"""How the rows of `benchmark.py` are measured: ways in turn, peaks of memory, and what the machine can do."""

import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

OVTOOL = [sys.executable, "-m", "ovtool"]
LIBRARIES = (
    "torch", "numpy", "open_clip_torch", "pillow", "pycocotools", "pydensecrf2", "scikit-image", "scipy",
    "spacy", "torchmetrics",
)  # fmt: skip
QUIET = 0.15  # of the processors' time that others may take
wall = time.perf_counter


@dataclass(frozen=True)
class Setup:
    """How a run measures.

    Attributes:
        folder: for files that are made on the way.
        quick: fewer repeats, smaller work, and processor times of one thread, which a busy machine changes little.
        limits: what the machine can do.
    """

    folder: Path
    quick: bool
    limits: "Limits"

    def medians(
        self, ways: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = True
    ) -> dict[str, float]:
        """The median time of several ways that are run in turn, in seconds.

        Args:
            ways: name to work.
            repeats: how many turns are counted in the whole table; `quick` counts at most 3.
            warm: whether a turn before them is not counted.
        """
        turns, clock = (min(repeats, 3), processor_seconds) if self.quick else (repeats, wall)
        times = seconds(ways, turns, warm=warm, clock=clock)
        return {name: statistics.median(several) for name, several in times.items()}


@dataclass(frozen=True)
class Limits:
    """What the machine can do with all its threads.

    Attributes:
        matrix: float32 operations a second in the product of two large matrices, by the faster of torch's libraries.
        bandwidth: bytes a second that a copy reads and writes.
        decode: seconds to decode a JPEG of 640 x 480 pixels.
    """

    matrix: float
    bandwidth: float
    decode: float

    def arithmetic(self, operations: float, seconds: float, theirs: float) -> str:
        """The share of the matrix peak that so many operations in so many seconds are, and how many times as good
        as a reference of `theirs` seconds they would be at the peak."""
        share, most = 100 * operations / seconds / self.matrix, theirs * self.matrix / operations
        return f"{share:.0f} % of the matrix peak, which would give {most:.3g}"

    def traffic(self, size: float, seconds: float) -> str:
        """The share of the bandwidth that so many bytes read or written in so many seconds are."""
        return f"{100 * size / seconds / self.bandwidth:.0f} % of the bandwidth"


def limits_of_machine() -> Limits:
    """Measures them, in about three seconds."""
    import io

    import numpy as np
    from PIL import Image
    from skimage import data

    from ovtool.methods import products

    one, other = torch.rand(2, 2048, 2048)
    matrix = min(best(lambda: one @ other, 7), best(lambda: products.linear(one, other), 7))
    large = torch.zeros(1 << 26)
    target = torch.empty_like(large)
    copying = best(lambda: target.copy_(large), 7)
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).resize((640, 480)).save(buffer, "JPEG", quality=90)
    decoding = best(lambda: np.asarray(Image.open(io.BytesIO(buffer.getvalue()))), 9)
    return Limits(2 * 2048**3 / matrix, 2 * large.nbytes / copying, decoding)


def best(work: Callable[[], Any], repeats: int) -> float:
    """The least time of a work in seconds, which is what a limit is."""
    return min(seconds({"": work}, repeats)[""])


def processor_seconds() -> float:
    """What this process and its children that have ended took of the processors, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, this process and those that it starts compute on one thread."""
    threads, names = torch.get_num_threads(), ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.pop(name, None) for name in names}
    torch.set_num_threads(1)
    os.environ |= dict.fromkeys(names, "1")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {} if value is None else {name: value}


def seconds(
    ways: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    warm: bool = True,
    clock: Callable[[], float] = wall,
) -> dict[str, list[float]]:
    """The times of several ways, which are run in turn.

    Args:
        ways: name to work.
        repeats: how many turns are counted.
        warm: whether a turn before them is not.
        clock: what says the time.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-int(warm), repeats):
        for name, work in ways.items():
            began = clock()
            work()
            if turn >= 0:
                times[name].append(clock() - began)
    return times


def command(arguments: Sequence[str]) -> Callable[[], Any]:
    """A work that runs a command, whose output is thrown away. It keeps compiled modules, as `pip install` leaves
    them, where the environment would have each start compile ours anew."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(arguments, check=True, capture_output=True, env=environment)


def peak_gigabytes(arguments: Sequence[str]) -> float:
    """The peak resident memory of a command, in GB of 10^9 bytes."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "capture_output=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024 / 1e9


def added_gigabytes(module: str, function: str, way: str, size: int) -> float:
    """What a work adds to the peak memory of a fresh process, in GB.

    Args:
        module: of this package.
        function: of the module: maps a size to works by name.
        way: the name of the work.
        size: what the function is given; the process runs the work of size 2 first, which loads what it needs.
    """
    code = (
        "import importlib, re, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        f"ways = getattr(importlib.import_module('benchmarks.{module}'), {function!r})\n"
        "def kilobytes(name):\n"
        "    return int(re.search(name + r':\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        f"ways(2)[{way!r}]()\n"
        f"work = ways({size})[{way!r}]\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = kilobytes('VmRSS')\nwork()\nprint(kilobytes('VmHWM') - before)\n"
    )
    folder = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, folder], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024 / 1e9


class Others:
    """What other processes take of this machine's processors from the making of the object on."""

    def __init__(self) -> None:
        self._began = _processors()

    def share(self) -> float:
        """From 0 to 1; 0 where the system does not say."""
        (busy, whole), (first_busy, first_whole) = _processors(), self._began
        return max(0.0, (busy - first_busy) / max(whole - first_whole, 1e-9))


def _processors() -> tuple[float, float]:
    """Seconds that processes other than this one and its children took, and seconds of all processors."""
    try:
        fields = [
            int(value) for value in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        ]
    except OSError:
        return 0.0, time.monotonic()
    ticks = os.sysconf("SC_CLK_TCK")
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / ticks - own, sum(fields) / ticks


def others_now(wait: float = 3.0) -> float:
    """The share of the processors that others take while this process waits."""
    others = Others()
    time.sleep(wait)
    return others.share()


def machine() -> str:
    """The processor, its vector instructions, the number of cores and what is installed, in a line."""
    name = platform.processor() or platform.machine()
    try:
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = model.group(1) if model else name
    except OSError:
        pass
    versions = []
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            continue
    name += f" ({torch.backends.cpu.get_cpu_capability()})"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{name}, {cores}, no GPU; Python {platform.python_version()}, {', '.join(versions)}"
