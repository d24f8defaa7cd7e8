"""The loop under every training: rates, steps, validation, checkpoints, and a stop at the first NaN.

What a step computes is a function of its number alone (data and noise are drawn from (seed, step)), so
a run that was cut off ends as one that was not.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from ovtool.errors import OvtoolError
from ovtool.runtime.progress import Progress, no_progress
from ovtool.settings import layers
from ovtool.settings.layers import Origin, known
from ovtool.settings.shared import Training
from ovtool.training import checkpoints, distributed
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.distributed import Ranks

Record = dict[str, float]
T = TypeVar("T", bound=Training)
VALIDATIONS = 5  # in a training, where their number is not given


class TrainingError(OvtoolError):
    """A training that cannot go on: its loss or gradients are not finite."""


@dataclass(frozen=True)
class Plan:
    """How long a training is and how its rate moves.

    steps: in all. warmup: steps of linear rise. shape: `cosine` falls to zero, `linear` too, `poly`
    with power 0.9 (detectron2's), `constant` stays.
    clip_norm: the greatest norm of the gradient over all parameters, None for no bound.
    save_every, validate_every: in steps; 0 is never.
    first: how many of the steps belong to a phase before, in which the rate rises and falls by itself.
    """

    steps: int
    warmup: int = 0
    shape: str = "cosine"
    clip_norm: float | None = None
    save_every: int = 100
    validate_every: int = 0
    first: int = 0

    def factor(self, step: int) -> float:
        """What the peak rate is multiplied with at a step, from 0 on."""
        begin, end = (0, self.first) if step < self.first else (self.first, self.steps)
        step -= begin
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, end - begin - self.warmup)
        falls = {
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "linear": 1 - done,
            "poly": (1 - done) ** 0.9,
            "constant": 1.0,
        }
        return float(falls[self.shape])


def plan_of(
    training: Training,
    shape: str = "cosine",
    clip_norm: float | None = None,
    is_validated: bool = True,
) -> Plan:
    """The plan of a training whose settings are settled."""
    return Plan(
        known(training.steps),
        known(training.warmup),
        shape,
        clip_norm,
        known(training.save_every),
        known(training.validate_every) if is_validated else 0,
    )


def settled(
    training: T,
    images: int,
    batch_size: int,
    save_every: int,
    published: Mapping[str, Any],
    recommended: Mapping[str, Any] | None = None,
) -> tuple[T, dict[str, Origin]]:
    """The settings with nothing left open that a training of any kind has, and where each value comes from.

    Args:
        training: As they were given. Without steps it takes as many as its epochs have batches, in which
            each image is seen at most once; the rate rises for a fifth of them at the most.
        images: How many there are to train on.
        batch_size: How many of them a batch holds.
        save_every: Steps between checkpoints, where they are not given.
        published: What is published of other fields (`layers.layered`).
        recommended: What the model's file recommends.

    Raises:
        UsageError: A value is not allowed.
    """
    steps = training.steps or max(1, round(known(training.epochs) * (images // batch_size)))
    own = {"steps": steps, "save_every": save_every}
    own["validate_every"] = max(1, steps // VALIDATIONS)
    filled, origins = layers.layered(
        training, published={**published, **own}, recommended=recommended
    )
    warmup = min(known(filled.warmup), steps // 5)
    return replace(filled, batch_size=batch_size, warmup=warmup), origins


def decaying(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """The groups of an optimiser in which only matrices and kernels decay."""
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in parameters:
        (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


@dataclass(frozen=True, eq=False)
class Task:
    """One training as plain data.

    Attributes:
        name: what is trained, for the progress bar: "training the head".
        modules: what a checkpoint keeps, by name.
        optimizer: over the parameters that are trained.
        plan: steps, learning rate schedule, and when to validate and to save.
        step: computes step `s` (from 0 on): leaves gradients, and returns the losses by name, the one to be
            watched as `loss`. Its batch is a function of (seed, s) alone.
        validate: measures by name, or None where nothing is held out.
        after_step: called with the number of a step that is done, before it may be saved.
        memory: what makes a step smaller, for the message where the device is out of memory.
    """

    name: str
    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    plan: Plan
    step: Callable[[int], Mapping[str, float]]
    validate: Callable[[], Mapping[str, float]] | None = None
    after_step: Callable[[int], None] | None = None
    memory: str = "a smaller --batch-size"


def train(
    task: Task,
    checkpoint: Checkpoint,
    *,
    begun: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
    progress: Progress = no_progress,
) -> list[Record]:
    """Trains to the end.

    Args:
        task: what is trained.
        checkpoint: where the training keeps its state; the caller removes it once the result is written.
        begun: what `checkpoint.begin` gave.
        ranks: this process among torchrun's.
        progress: opens a bar.

    Returns:
        The curve: one record a step, `step` (from 1 on) and losses, with the measures of validation where
        there was one.

    Raises:
        TrainingError: the loss or the gradient is not finite; the checkpoint stays.
    """
    modules, optimizer, plan = task.modules, task.optimizer, task.plan
    ranks = ranks or distributed.alone()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group.setdefault("peak", group["lr"])
    curve: list[Record] = []
    if begun is not None:
        try:
            curve = _restored(task, begun)
        except Exception as error:  # torch has one for each way in which a state does not fit
            raise checkpoints.broken(checkpoint.path) from error
    first = len(curve)
    with progress(plan.steps, task.name) as advance:
        advance(first)
        for step in range(first, plan.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * plan.factor(step)
            optimizer.zero_grad(set_to_none=True)
            losses = dict(task.step(step))
            distributed.average_gradients(parameters, ranks)
            norm = nn.utils.clip_grad_norm_(parameters, plan.clip_norm or math.inf)
            _check_finite(step + 1, losses, float(norm), checkpoint)
            optimizer.step()
            if task.after_step is not None:
                task.after_step(step)
            curve.append({"step": step + 1, **losses})
            if task.validate is not None and _is_due(step + 1, plan.validate_every, plan.steps):
                curve[-1].update(task.validate())
            if ranks.is_first and _is_due(step + 1, plan.save_every, plan.steps):
                checkpoint.save(
                    {
                        "modules": {name: module.state_dict() for name, module in modules.items()},
                        "optimizer": optimizer.state_dict(),
                        "curve": curve,
                    }
                )
            advance(1)
    return curve


def _restored(task: Task, begun: Mapping[str, Any]) -> list[Record]:
    """Puts modules and optimizer where a checkpoint stands; the curve until there. Raises what torch raises, and
    ValueError for a state of other shapes or types than the optimizer's own."""
    for name, module in task.modules.items():
        module.load_state_dict(begun["modules"][name])
    optimizer = task.optimizer
    kinds = [{key: type(value) for key, value in g.items()} for g in optimizer.param_groups]
    optimizer.load_state_dict(begun["optimizer"])
    if kinds != [{key: type(value) for key, value in g.items()} for g in optimizer.param_groups]:
        raise ValueError("other settings of the optimizer")
    for parameter, state in optimizer.state.items():
        kept = [value for value in state.values() if torch.is_tensor(value)]
        if any(value.shape != parameter.shape for value in kept if value.numel() != 1):
            raise ValueError("a state of another shape")
    curve = [dict(record) for record in begun["curve"]]
    if not all(type(value) in (int, float) for record in curve for value in record.values()):
        raise ValueError("a curve of other things than numbers")
    return curve


def thinned(curve: list[Record], most: int = 200) -> list[Record]:
    """At most `most` records of a curve for a file's header: means over equal runs of steps, rounded
    to six digits; what only some records have is kept."""
    length = max(1, math.ceil(len(curve) / most))
    records = []
    for start in range(0, len(curve), length):
        chunk = curve[start : start + length]
        names = dict.fromkeys(name for record in chunk for name in record)
        means = {
            name: [record[name] for record in chunk if name in record]
            for name in names
            if name != "step"
        }
        records.append(
            {"step": chunk[-1]["step"]}
            | {name: float(f"{sum(some) / len(some):.6g}") for name, some in means.items()}
        )
    return records


def _is_due(done: int, every: int, steps: int) -> bool:
    return every > 0 and (done % every == 0 or done == steps)


def _check_finite(
    step: int, losses: Mapping[str, float], norm: float, checkpoint: Checkpoint
) -> None:
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    if not wrong and math.isfinite(norm):
        return
    what = f"the {wrong[0]} is {losses[wrong[0]]}" if wrong else f"the gradient's norm is {norm}"
    kept = (
        f"{checkpoint.path} holds the last good step"
        if checkpoint.path.exists()
        else "no checkpoint was written yet"
    )
    raise TrainingError(f"{what} at step {step}; train with a lower rate ({kept})")
