"""The engine: drives a function over parts, and keeps each result the moment it is whole.

A stage is: items -> ``parts.cut`` -> ``work(part)`` -> records -> ``merge.merge_records``. The engine
knows nothing of what the work is, so that a cluster can take the place of this loop.
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


def run_local(
    parts: Sequence[Part],
    store: PartStore,
    work: Callable[[Part], PartOutput],
    *,
    resume: bool = False,
    anew: bool = False,
    strict: bool = False,
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Runs ``work`` on each part in turn, in this process.

    With ``resume`` the parts that the store has are kept; all of them are looked at before any work
    begins, so that settings that disagree are reported at once. Without it they are removed first and
    made anew. Whatever stops the run (Ctrl-C, a kill, a full disk), the parts done by then stay.

    Args:
        anew: with ``resume``, make a part of another run anew instead of refusing it.
        strict: stop at the first failure instead of keeping it as a record.
        advance: called with the number of images done since its last call, failures included.

    Raises:
        MismatchError: ``resume`` without ``anew``, and a part in the store comes from another run.
        InputError: a part cannot be written, or ``strict`` and an image failed.
    """
    kept: set[int] = set()
    if resume:
        kept = {part.index for part in parts if store.exists(part, or_other=anew)}
        logger.info("resuming: %d of %d parts are done", len(kept), len(parts))
    elif removed := store.discard(parts):
        logger.warning(
            "removed %d parts of an earlier run in %s; --resume keeps them", removed, store.folder
        )
    for part in parts:
        size = part.stop - part.start
        if part.index in kept:
            advance(size)
            continue
        store.clean(part)
        output = work(part)
        records = _watched(output.records, size, strict, advance)
        store.write(part, records, output.tensors, output.note)


def _watched(
    records: Iterable[Record], size: int, strict: bool, advance: Callable[[int], None]
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
