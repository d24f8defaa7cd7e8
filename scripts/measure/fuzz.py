#!/usr/bin/env python3
"""Damages files at random and reads them: every failure must be one of ovtool's own errors, soon and in little memory.

    scripts/measure/fuzz.py [--cases 40] [--seconds S] [--seed 0] [--only NAME,NAME]

For each reader a good file is made; each case changes it in one to three places (bytes; or, where the file holds
JSON, values that are missing, of another type, huge, infinite, deep, no UTF-8, or paths that lead elsewhere) and
reads it. Prints one JSON object: reader to cases, refused, read, and `lost`, the cases that ended otherwise, each
with its seed. The exit status is 1 where there are any.
"""

import argparse
import contextlib
import json
import logging
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzz_readers
from fuzz_readers import Reader

from ovtool.errors import OvtoolError

SECONDS = 20  # of a case, on a machine that others use too
LEAST = 3  # cases of a reader, however little time there is
MEMORY = 6 << 30  # bytes of address space above what is there before the first case
WEIRD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**9, 10**30, 2**63, -(2**63), 0.5, -0.0, 1e308, 1e400, float("nan"), "", "x", "\ud800",
    "\x1b[31m", "x" * 5000, "../../x", "/etc/passwd", "a\0b", [], {}, [[]], [1, 2, 3], {"x": 1}, ["x"],
)  # fmt: skip


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one run changed, left out, doubled or cut off."""
    start = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:  # headers come first
        start = min(start, rng.randrange(200))
    stop = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 300)))
    other = rng.choice(
        (
            rng.randbytes(stop - start), b"", bytes(stop - start), data[start:stop] * 2, b"\xff" * (stop - start),
            str(rng.choice((-1, 0, 10**9, 10**30))).encode(),
        )
    )  # fmt: skip
    return data[:start] if rng.random() < 0.2 else data[:start] + other + data[stop:]


def damaged_json(value: Any, rng: random.Random) -> Any:
    """JSON with one value in it changed, however deep it lies."""
    if rng.random() < 0.03:
        return deep(5000)
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: damaged_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        if rng.random() < 0.15:
            return [*value, value[place]]
        return [*value[:place], damaged_json(value[place], rng), *value[place + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.3:
        return rng.choice((value + 1, -value, float(value), str(value), value * 10**9))
    return rng.choice(WEIRD)


class Deep(list[Any]):
    """A list that stands for itself, many times in each other."""


def deep(depth: int) -> Deep:
    """What `dumped` writes as that many lists in each other."""
    return Deep([depth])


def dumped(value: Any) -> str:
    """JSON as Python writes it, halves of characters, NaN and depths among it."""
    text = json.dumps(_marked(value))
    return text.replace('"DEEP"', "[" * 5000 + "]" * 5000)


def _marked(value: Any) -> Any:
    if isinstance(value, Deep):
        return "DEEP"
    if isinstance(value, dict):
        return {key: _marked(inner) for key, inner in value.items()}
    return [_marked(inner) for inner in value] if isinstance(value, list) else value


def damaged_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with a header that says something else."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header and rng.random() < 0.8:
        own = damaged_json(json.loads(header["__metadata__"]["ovtool"]), rng)
        header["__metadata__"]["ovtool"] = dumped(own)
    else:
        header = damaged_json(header, rng)
    text = dumped(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    """The content of a file of a kind (`json`, `lines`, `tensors`, `bytes`), damaged."""
    if kind == "bytes" or rng.random() < 0.2:
        return damaged_bytes(data, rng)
    if kind == "tensors":
        return damaged_tensors(data, rng)
    if kind == "json":
        return dumped(damaged_json(json.loads(data), rng)).encode()
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = dumped(damaged_json(json.loads(lines[place]), rng)).encode()
    return b"\n".join(lines) + b"\n"


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raises TimeoutError where a block takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def case(reader: Reader, folder: Path, good: dict[Path, bytes], seed: str) -> str | None:
    """Reads the files of a reader with one of them damaged.

    Returns:
        `read`, `refused`, or what else it ended in.
    """
    rng = random.Random(seed)
    for path, data in good.items():
        path.write_bytes(data)
    path = rng.choice([path for path in good if reader.is_damaged(path)])
    data = good[path]
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        for _ in range(rng.choice((1, 1, 2, 3))):  # what is no JSON any more is left so
            data = damaged(data, reader.kind, rng)
    path.write_bytes(data)
    (folder / "last").write_text(seed)  # for a case that ends the process
    try:
        with limit(SECONDS):
            reader.read(folder)
    except OvtoolError as error:
        return (
            "refused"
            if "\n" not in str(error) and len(str(error)) < 2000
            else f"long: {error!r:.200}"
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "read"


def run(reader: Reader, cases: int, seed: int, until: float) -> dict[str, Any]:
    """All cases of a reader, or as many as there is time for, and a few in any case."""
    counts: dict[str, Any] = {"cases": 0, "read": 0, "refused": 0, "lost": []}
    with tempfile.TemporaryDirectory(prefix="ovtool-fuzz-") as scratch:
        folder = Path(scratch)
        reader.make(folder)
        reader.read(folder)  # it must be good before
        good = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for number in range(cases):
            if number >= LEAST and time.monotonic() > until:
                break
            name = f"{seed}:{reader.name}:{number}"
            ended = case(reader, folder, good, name)
            counts["cases"] += 1
            if ended in ("read", "refused"):
                counts[ended] += 1
            else:
                counts["lost"].append(f"{name} {ended}")
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=40, help="of each reader (40)")
    parser.add_argument("--seconds", type=float, default=600, help="in all (600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of readers, with commas")
    given = parser.parse_args()
    logging.getLogger("ovtool").addHandler(logging.NullHandler())
    readers = fuzz_readers.READERS
    if given.only:
        readers = [reader for reader in readers if reader.name in given.only.split(",")]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    begun, counts = time.monotonic(), {}
    for index, reader in enumerate(readers, 1):
        until = begun + given.seconds * index / len(readers)
        counts[reader.name] = run(reader, given.cases, given.seed, until)
    print(json.dumps(counts, indent=1))
    return int(any(counts[name]["lost"] for name in counts))


if __name__ == "__main__":
    sys.exit(main())
