"""What a run over images left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ovtool.formats import coco
from ovtool.formats.mask_store import Masks


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        dataset: the merged data set. Of a run of several parts its masks are read from `out` when they are
            asked for, so that they are not all held.
        out: where it was written.
        failures: the images that failed, with reasons.
        planned: the number of images of a dry run, which leaves nothing.
        plan: how a dry run would share them out: `parts`, `part_size`, `workers`, `device`, `threads`.
        shard: which shard this was, such as `3/16`; its parts are in `out`, and the data set is theirs.
        files: what else was written, kind to place, such as `overlays` to a folder.
    """

    dataset: coco.Dataset
    out: str
    failures: Sequence[Mapping[str, str]] = field(default_factory=tuple)
    planned: int | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    shard: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def held(self) -> Outcome:
        """The same, its masks held, so that the file they are in may go."""
        annotations = Masks(self.dataset.annotations)
        return replace(self, dataset=replace(self.dataset, annotations=annotations))
