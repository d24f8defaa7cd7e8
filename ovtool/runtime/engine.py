"""The engine: drives a function over parts, and keeps each result the moment it is whole.

A stage is: items -> ``parts.cut`` -> ``work(part)`` -> records -> ``merge.merge_records``. An engine knows
nothing of what the work is: ``in_turn`` does the parts here, ``processes`` and ``cluster`` share them out.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovtool.errors import InputError
from ovtool.formats.parts import Part, PartStore, Record
from ovtool.formats.tensors import Array

logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class PartOutput:
    """What ``work`` makes of a part, with a record for each item, in order.

    ``records`` may be a generator: progress then moves with each image. ``tensors`` and ``note``
    (kept with the part, not merged; a halved batch size) may be filled while it runs.
    """

    records: Iterable[Record]
    tensors: Mapping[str, Array] | None = None
    note: Mapping[str, Any] = field(default_factory=dict)


Advance = Callable[[int], None]  # is told the number of images done since its last call
Task = Callable[[Part, Advance], None]  # does one part, and keeps it
Engine = Callable[[Sequence[Part], Task, Advance], None]  # does all of them, here or elsewhere


@dataclass(frozen=True, eq=False)
class PartTask:
    """Does one part and keeps it: the same wherever it runs, in this process, in another, or on a cluster.

    Attributes:
        store: keeps the parts.
        work: makes the records of a part.
        strict: stop at the first failure instead of keeping it as a record.
    """

    store: PartStore
    work: Callable[[Part], PartOutput]
    strict: bool = False

    def __call__(self, part: Part, advance: Advance) -> None:
        """Does a part. Raises InputError: it cannot be written, or `strict` and an image failed."""
        self.store.clean(part)
        output = self.work(part)
        records = _watched(output.records, part.stop - part.start, self.strict, advance)
        self.store.write(part, records, output.tensors, output.note)


def in_turn(parts: Sequence[Part], task: Task, advance: Advance) -> None:
    """The engine of one process: this one, a part after the other."""
    for part in parts:
        task(part, advance)


def run_parts(
    parts: Sequence[Part],
    store: PartStore,
    work: Callable[[Part], PartOutput],
    *,
    engine: Engine = in_turn,
    resume: bool = False,
    anew: bool = False,
    strict: bool = False,
    advance: Advance = lambda images: None,
) -> None:
    """Runs ``work`` on each part.

    With ``resume`` the parts that the store has are kept; all of them are looked at before any work
    begins, so that settings that disagree are reported at once. Without it they are removed first and
    made anew. Whatever stops the run (Ctrl-C, a kill, a full disk), the parts done by then stay.

    Args:
        engine: what runs them, one after the other or many at once.
        anew: with ``resume``, make a part of another run anew instead of refusing it.
        strict: stop at the first failure instead of keeping it as a record.
        advance: called with the number of images done since its last call, failures included.

    Raises:
        MismatchError: ``resume`` without ``anew``, and a part in the store comes from another run.
        InputError: a part cannot be written, or ``strict`` and an image failed.
    """
    left = list(parts)
    if resume:
        left = [part for part in parts if not store.exists(part, or_other=anew)]
        logger.info("resuming: %d of %d parts are done", len(parts) - len(left), len(parts))
        for part in set(parts) - set(left):
            advance(part.stop - part.start)
    elif removed := store.discard(parts):
        logger.warning(
            "removed %d parts of an earlier run in %s; --resume keeps them", removed, store.folder
        )
    engine(left, PartTask(store, work, strict), advance)


def _watched(
    records: Iterable[Record], size: int, strict: bool, advance: Advance
) -> Iterator[Record]:
    """The records of a part as they pass, counted, so that each item has its record."""
    count = 0
    for record in records:
        if strict and "failure" in record:
            file_name, reason = record["failure"]["file_name"], record["failure"]["reason"]
            # the reason often names the file already
            raise InputError(reason if file_name in reason else f"{file_name}: {reason}")
        yield record
        count += 1
        advance(1)
    if count != size:
        raise RuntimeError(f"the work made {count} records of {size} items")
