"""The loop under every training: rates, steps, validation, checkpoints, and a stop at the first NaN.

What a step computes is a function of its number alone (data and noise are drawn from (seed, step)), so
a run that was cut off ends as one that was not.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ovtool.errors import OvtoolError
from ovtool.training import distributed
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.distributed import Ranks

Record = dict[str, float]
# (total, description) opens a bar, whose callback takes the steps done since the last call
Progress = Callable[[int | None, str], AbstractContextManager[Callable[..., None]]]


class TrainingError(OvtoolError):
    """A training that cannot go on: its loss or gradients are not finite."""


@contextmanager
def _silent(total: int | None, description: str) -> Any:
    yield lambda n=1: None


@dataclass(frozen=True)
class Plan:
    """How long a training is and how its rate moves.

    steps: in all. warmup: steps of linear rise. shape: `cosine` falls to zero, `linear` too, `poly`
    with power 0.9 (detectron2's), `constant` stays.
    clip_norm: the greatest norm of the gradient over all parameters, None for no bound.
    save_every, validate_every: in steps; 0 is never.
    """

    steps: int
    warmup: int = 0
    shape: str = "cosine"
    clip_norm: float | None = None
    save_every: int = 100
    validate_every: int = 0

    def factor(self, step: int) -> float:
        """What the peak rate is multiplied with at a step, from 0 on."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        falls = {
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "linear": 1 - done,
            "poly": (1 - done) ** 0.9,
            "constant": 1.0,
        }
        return falls[self.shape]


def train(
    gradients: Callable[[int], Mapping[str, float]],
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    checkpoint: Checkpoint,
    *,
    begun: Mapping[str, Any] | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    after_step: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    progress: Progress = _silent,
    description: str = "training",
) -> list[Record]:
    """Trains to the end and returns the curve: one record a step, `step` (from 1 on) and losses, with
    the results of validation where there was one.

    gradients: computes step `s` (from 0 on): leaves gradients in the parameters, which are cleared
        before, and returns the losses by name, the one to be watched as `loss`.
    modules: what a checkpoint keeps; every parameter of theirs that is in the optimiser is trained.
    begun: what `checkpoint.begin` gave.
    after_step: called with the number of a step that is done, before it may be saved.

    Raises TrainingError where the loss or the gradient is not finite; the checkpoint stays. The caller
    removes the checkpoint once the result is written.
    """
    ranks = ranks or Ranks(0, 1, torch.device("cpu"))
    parameters = [one for group in optimiser.param_groups for one in group["params"]]
    for group in optimiser.param_groups:
        group.setdefault("peak", group["lr"])
    curve: list[Record] = []
    if begun is not None:
        for name, module in modules.items():
            module.load_state_dict(begun["modules"][name])
        optimiser.load_state_dict(begun["optimiser"])
        curve = list(begun["curve"])
    first = len(curve)
    with progress(plan.steps, description) as advance:
        advance(first)
        for step in range(first, plan.steps):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * plan.factor(step)
            optimiser.zero_grad(set_to_none=True)
            losses = dict(gradients(step))
            distributed.average_gradients(parameters, ranks)
            norm = nn.utils.clip_grad_norm_(parameters, plan.clip_norm or math.inf)
            _check_finite(step + 1, losses, float(norm), checkpoint)
            optimiser.step()
            if after_step is not None:
                after_step(step)
            curve.append({"step": step + 1, **losses})
            if validate is not None and _is_due(step + 1, plan.validate_every, plan.steps):
                curve[-1].update(validate())
            if ranks.is_first and _is_due(step + 1, plan.save_every, plan.steps):
                checkpoint.save(
                    {
                        "modules": {name: one.state_dict() for name, one in modules.items()},
                        "optimiser": optimiser.state_dict(),
                        "curve": curve,
                    }
                )
            advance(1)
    return curve


def thinned(curve: list[Record], most: int = 200) -> list[Record]:
    """At most `most` records of a curve for a file's header: means over equal runs of steps, rounded
    to six digits; what only some records have is kept."""
    length = max(1, math.ceil(len(curve) / most))
    found = []
    for start in range(0, len(curve), length):
        chunk = curve[start : start + length]
        names = dict.fromkeys(name for record in chunk for name in record)
        means = {
            name: [record[name] for record in chunk if name in record]
            for name in names
            if name != "step"
        }
        found.append(
            {"step": chunk[-1]["step"]}
            | {name: float(f"{sum(some) / len(some):.6g}") for name, some in means.items()}
        )
    return found


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
    raise TrainingError(f"{what} at step {step}: train with a lower rate ({kept})")
