"""The frame that stands around every training, from the check of its outputs to the file it leaves.

    place = run.opened(out, compute, how, progress)          # before any work, and before any model is loaded
    frame = place.frame(shapes, title, ranks, failures)
    begun = run.begin(frame)                                 # where a run that was cut off goes on
    curve = run.train(task, begun)                           # `training.loop`, out of memory in one line
    run.finish(frame, curve, save, begun)                    # the file, its curve, no checkpoint any more

`complete` does the last three for a training of one task. A task is plain data, built by a function of
`trainers/` from a model, batches and settings. Work around the training that may run out of memory too
(encoding images once, validation) goes into `with run.plain_errors(frame, "encoding images"):`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ovtool.errors import OvtoolError, UsageError
from ovtool.formats import atomic, parts, plots
from ovtool.formats.lock import Lock
from ovtool.models import resolve
from ovtool.runtime import device as devices
from ovtool.runtime.memory import bounded
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings.shared import Compute, Run
from ovtool.training import checkpoints, distributed, loop
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Record, Task

Save = Callable[
    [Path, Mapping[str, Any]], None
]  # writes a file, given its place and its header's settings
Failure = Mapping[str, str]  # an image that is left out: `file_name` and `reason`


@dataclass(frozen=True)
class Outputs:
    """Where a training writes: its file, and the loss curve as PNG beside it."""

    file: Path
    curve: Path

    @classmethod
    def of(cls, out: Path | str) -> Outputs:
        """The places of a training that writes `out`."""
        return cls(Path(out), Path(out).with_suffix(".png"))

    @property
    def places(self) -> tuple[Path, Path]:
        """Both of them."""
        return self.file, self.curve


@dataclass(frozen=True, eq=False)
class Frame:
    """What surrounds a training.

    Attributes:
        outputs: as `check_outputs` gave them.
        shapes: all that shapes the result, as plain data without paths: settings, digests of data, the
            fingerprint of the CLIP under `model`. It guards `resume`, and stands in the file's header.
        title: of the curve: the command.
        run: what to do with a checkpoint that is there; with `update`, one of other data or settings is
            removed, and no error.
        ranks: this process among torchrun's.
        progress: opens a bar; only the first process shows it.
        failures: images that are left out, `file_name` and `reason`; they stand in the header too.
        asked: the digest of the request (`inputs.asked`), which the header keeps for `--update`.
    """

    outputs: Outputs
    shapes: Mapping[str, Any]
    title: str
    run: Run = Run()
    ranks: Ranks = field(default_factory=distributed.alone)
    progress: Progress = no_progress
    failures: Sequence[Failure] = ()
    asked: str | None = None

    @property
    def digest(self) -> str:
        """Of all that shapes the result, the kind of device, the number of processes and of threads, and
        the images that are left out."""
        place = {"device": self.ranks.device.type, "world": self.ranks.world}
        threads = {"threads": torch.get_num_threads()}
        left_out = {"left_out": [failure["file_name"] for failure in self.failures]}
        if not self.failures:
            left_out = {}
        return parts.settings_digest({**self.shapes, **place, **threads, **left_out})

    def checkpoint(self, phase: str = "") -> Checkpoint:
        """Where a training of this frame keeps its state; `phase` tells several of one command apart."""
        file = self.outputs.file
        return checkpoints.beside(Path(f"{file}.{phase}") if phase else file, self.digest)


@dataclass(frozen=True, eq=False)
class Begun:
    """A checkpoint, and what to go on from; None at the start. The first process holds the lock."""

    checkpoint: Checkpoint
    state: Mapping[str, Any] | None
    frame: Frame
    lock: Lock | None = None

    @property
    def steps(self) -> int:
        """How many steps were done before."""
        return 0 if self.state is None else len(self.state["curve"])


@dataclass(frozen=True)
class Trained:
    """What a training left, whatever was trained.

    Attributes:
        outputs: the file and its curve.
        parameters: how many were trained, by what they are.
        counts: of the data: images, pairs, classes, images held out and left out.
        steps: of all trainings of the command.
        last: the last record of the curve: losses, and measures of the data held out; empty for a plan.
        before: the same measures before the first step, where they were taken.
        notes: what only this training has to say, by name.
        failures: images that were left out, `file_name` and `reason`.
        is_plan: whether nothing was trained (a dry run).
        is_first: whether this process is the one that writes and speaks.
    """

    outputs: Outputs
    parameters: Mapping[str, int]
    counts: Mapping[str, int | None]
    steps: int
    last: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    is_plan: bool = False
    is_first: bool = True

    @property
    def loss(self) -> float | None:
        """The loss of the last step; None for a plan."""
        return self.last.get("loss")

    @property
    def after(self) -> dict[str, float]:
        """The measures of `before`, after the last step."""
        return {name: self.last[name] for name in self.before if name in self.last}

    def as_data(self) -> dict[str, Any]:
        """All of it as one JSON object; counts and notes stand beside the rest by their own names."""
        return {
            "out": str(self.outputs.file),
            "curve_file": str(self.outputs.curve),
            "parameters": dict(self.parameters),
            **self.counts,
            "steps": self.steps,
            "before": dict(self.before),
            "last": dict(self.last),
            **self.notes,
            "failures": [dict(failure) for failure in self.failures],
            "is_plan": self.is_plan,
        }


@dataclass(frozen=True, eq=False)
class Place:
    """Where a training computes and writes, as it was asked for.

    Attributes:
        outputs: as `check_outputs` gave them.
        device: where it computes.
        dtype: in which networks compute.
        run: whether to resume, to overwrite, or only to plan.
        progress: opens a bar.
        asked: the digest of the request (`inputs.asked`).
    """

    outputs: Outputs
    device: torch.device
    dtype: torch.dtype
    run: Run
    progress: Progress
    asked: str | None = None

    def frame(
        self,
        shapes: Mapping[str, Any],
        title: str,
        ranks: Ranks,
        failures: Sequence[Failure] = (),
    ) -> Frame:
        """What surrounds the training of some processes; its arguments are attributes of `Frame`."""
        return Frame(
            self.outputs,
            {**shapes, "precision": str(self.dtype).removeprefix("torch.")},
            title,
            self.run,
            ranks,
            self.progress,
            failures,
            self.asked,
        )


def opened(out: Path | str, compute: Compute, run: Run, progress: Progress) -> Place:
    """Checks all that can be checked before any work, and sets the threads of the CPU.

    Raises:
        OutputExistsError: an output is there, and `run.overwrite` was not given.
        UsageError: a device or a number type that cannot be had, or a model that is unknown.
        InputError: an output cannot be written.
    """
    is_unfinished = run.resume and not Path(out).exists()  # its curve may be there: it comes first
    outputs = check_outputs(out, run.may_replace(out) or is_unfinished)
    devices.set_threads(compute.threads)
    device = devices.choose(compute.device)
    dtype = devices.training_precision(compute.precision, device)
    if compute.model is not None:
        resolve.spec(resolve.choose(compute.model))
    return Place(outputs, device, dtype, run, progress)


def check_outputs(out: Path | str, overwrite: bool) -> Outputs:
    """The places that a training writes to, checked before any work.

    Raises:
        OutputExistsError: one is there, and `overwrite` was not given.
        InputError: one cannot be written.
        UsageError: it is stdout, beside which there is no place.
    """
    if str(out) == "-":
        raise UsageError(
            "a training keeps a curve and a checkpoint beside its output; name a file in place of -"
        )
    outputs = Outputs.of(out)
    atomic.check_outputs((outputs.file, outputs.curve), overwrite)
    return outputs


def begin(frame: Frame, phase: str = "") -> Begun:
    """The checkpoint of a training and what it holds; look at all of them before any work.

    Args:
        frame: of the command.
        phase: which of its trainings, where it has several; the last one has no name.

    Raises:
        OutputExistsError: a checkpoint is there, and neither `resume` nor `overwrite` was given; or another
            process trains to this output.
        MismatchError: it is of a training with other data or settings.
        InputError: it is broken.
    """
    checkpoint = frame.checkpoint(phase)
    lock = Lock(checkpoint.path) if frame.ranks.is_first else None
    run = frame.run
    if lock is not None and not (run.resume or run.update):  # written since `check_outputs`
        atomic.check_outputs(frame.outputs.places, run.overwrite)
    with plain_errors(frame, "starting", phase=phase):
        state = checkpoints.begin_together(
            checkpoint, frame.ranks, run.resume, run.overwrite, run.update
        )
    return Begun(checkpoint, state, frame, lock)


def train(task: Task, begun: Begun) -> list[Record]:
    """Trains to the end and returns the curve, one record a step. The checkpoint stays.

    Raises:
        TrainingError: a loss or gradient that is not finite, or another process that ended.
        OvtoolError: the device is out of memory.
    """
    ranks, checkpoint = begun.frame.ranks, begun.checkpoint
    progress = begun.frame.progress if ranks.is_first else no_progress
    with _plain(ranks, checkpoint, task.name, task.memory):
        return loop.train(task, checkpoint, begun=begun.state, ranks=ranks, progress=progress)


@contextmanager
def plain_errors(
    frame: Frame, doing: str, memory: str = "a smaller --batch-size", phase: str = ""
) -> Iterator[None]:
    """Says in one line where memory ran out, or another process of the training ended.

    Args:
        frame: of the training.
        doing: what is done inside, for the message: "encoding images".
        memory: what makes that smaller.
        phase: which of the command's checkpoints the message names.

    Raises:
        OvtoolError: the device is out of memory.
        TrainingError: another process of the training ended.
    """
    with _plain(frame.ranks, frame.checkpoint(phase), doing, memory):
        yield


@contextmanager
def _plain(ranks: Ranks, checkpoint: Checkpoint, doing: str, memory: str) -> Iterator[None]:
    left = None
    try:
        # a GPU refuses by itself, and maps more than it takes
        with bounded() if ranks.device.type == "cpu" else nullcontext() as left:
            yield
    except (RuntimeError, MemoryError) as error:
        kept = "no checkpoint was written yet"
        if checkpoint.path.exists():
            kept = f"{checkpoint.path} holds the last step saved; go on with --resume"
        if devices.is_out_of_memory(error):
            had = "" if left is None else f": {left / 1e9:.1f} GB were free"
            raise OvtoolError(
                f"out of memory while {doing}{had}; give {memory} ({kept})"
            ) from error
        if ranks.world > 1 and distributed.is_of_a_connection(error):
            raise loop.TrainingError(
                f"another process of the training ended, so process {ranks.rank} does too ({kept})"
            ) from error
        raise


def finish(
    frame: Frame,
    curve: list[Record],
    save: Save,
    *checkpoints_done: Begun,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Writes the curve and then the file, and removes the checkpoints. Only the first process writes. Wherever
    it is killed, `--resume` ends with the same files.

    Args:
        frame: of the training.
        curve: of all its steps.
        save: writes the file, given its place and the header's settings.
        checkpoints_done: what is no longer needed once the file is written.
        more: what the header says besides `shapes`, such as measures.
    """
    if not frame.ranks.is_first:
        return
    thinned = loop.thinned(curve)
    more = {**(more or {}), "failures": list(frame.failures)}
    if frame.asked is not None:
        more["asked"] = frame.asked
    plots.losses(frame.outputs.curve, thinned, frame.title)
    save(frame.outputs.file, {**frame.shapes, **more, "curve": thinned})
    main = frame.checkpoint().path  # goes last: where it is, `--resume` may write the outputs again
    for begun in sorted(checkpoints_done, key=lambda begun: begun.checkpoint.path == main):
        begun.checkpoint.remove()
        if begun.lock is not None:
            begun.lock.release()


def complete(
    frame: Frame,
    task: Task,
    save: Save,
    more: Mapping[str, Any] | None = None,
) -> list[Record]:
    """A command's one training from begin to finish; returns its curve. Raises as `begin` and `train`."""
    begun = begin(frame)
    curve = train(task, begun)
    finish(frame, curve, save, begun, more=more)
    return curve


def measures(curve: list[Record]) -> Record:
    """The last record of a curve, without its step."""
    return {name: value for name, value in curve[-1].items() if name != "step"}


def joined_curves(*curves: list[Record]) -> list[Record]:
    """The curves of trainings that follow each other as one; steps are counted on."""
    whole: list[Record] = []
    for curve in curves:
        done = len(whole)
        whole += [{**record, "step": record["step"] + done} for record in curve]
    return whole
