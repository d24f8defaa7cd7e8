"""Where a training stands, in one file beside its output, so that a run that was cut off goes on.

The file holds weights, optimizer, step and curve, and a digest of the settings that shape the result.
It is a torch file, read with `weights_only=True`, written whole or not at all.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ovtool.errors import InputError, MismatchError, OutputExistsError
from ovtool.formats import atomic
from ovtool.training.distributed import Ranks

# what reading a file that is no checkpoint ends in
_BROKEN = (
    RuntimeError, pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError,
    OSError,  # a place in the file that no file can have
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one training.

    path: where it lies. digest: of all settings that shape the result (`parts.settings_digest`).
    """

    path: Path
    digest: str

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes plain data and tensors. Raises InputError where the place cannot be written."""
        buffer = io.BytesIO()
        torch.save({"digest": self.digest, **state}, buffer)
        atomic.remove_stale(self.path)
        atomic.write_bytes(self.path, buffer.getvalue())

    def load(self) -> dict[str, Any]:
        """What was saved, on the CPU.

        Raises:
            InputError: the file is broken, or no checkpoint.
            MismatchError: other settings than those of this run.
        """
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            digest = state.pop("digest")
            list(state.get("curve", ()))
        except _BROKEN:
            raise broken(self.path) from None
        if digest != self.digest:
            raise MismatchError(
                f"{self.path} is the checkpoint of a training with other data or settings; give the "
                "same ones, or remove it to train from the start"
            )
        return dict(state)

    def begin(self, resume: bool, overwrite: bool, anew: bool = False) -> dict[str, Any] | None:
        """What to go on from, or None at the start; call it before any work.

        Args:
            resume: go on with a checkpoint that is there.
            overwrite: remove it.
            anew: with `resume`, remove one that is broken or of another training.

        Raises OutputExistsError where a checkpoint is in the way, and as `load`.
        """
        if not self.path.exists():
            return None
        if resume:
            try:
                return self.load()
            except (InputError, MismatchError):
                if not anew:
                    raise
        elif not overwrite:
            raise OutputExistsError(
                f"{self.path} is the checkpoint of a training that was cut off: go on with --resume, "
                "or start anew with --overwrite"
            )
        self.path.unlink()
        return None

    def remove(self) -> None:
        """Removes the file, once the training has written its result."""
        self.path.unlink(missing_ok=True)


def broken(path: Path) -> InputError:
    """The error for a checkpoint that cannot be gone on from."""
    return InputError(f"{path} is broken or no checkpoint; remove it to train from the start")


def begin_together(
    checkpoint: Checkpoint, ranks: Ranks, resume: bool, overwrite: bool, anew: bool = False
) -> dict[str, Any] | None:
    """`Checkpoint.begin` for every process; the first one alone removes what is in the way."""
    begun = checkpoint.begin(resume, overwrite, anew) if ranks.is_first else None
    if ranks.world > 1:
        dist.barrier()
        if not ranks.is_first and resume and checkpoint.path.exists():
            begun = checkpoint.load()
    return begun


def beside(out: Path, digest: str) -> Checkpoint:
    """The checkpoint of the training that writes `out`."""
    return Checkpoint(Path(f"{out}.checkpoint"), digest)
