"""The loop under every training: resume, NaN, rates, and many ranks against one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ovtool.errors import InputError, MismatchError, OutputExistsError
from ovtool.training import checkpoints, loop
from ovtool.training.loop import Plan, Task

ROOT = Path(__file__).parents[2]


def regression(out, steps=12, broken_at=None, killed_at=None, begun=None, digest="a", save_every=4):
    """A small regression whose data depend on the step alone; the module and the curve."""
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    checkpoint = checkpoints.beside(out, digest)
    begun = checkpoint.begin(resume=True, overwrite=False)

    def gradients(step):
        if step == killed_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 3, generator=generator)
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        if step == broken_at:
            loss = loss * float("nan")
        loss.backward()
        return {"loss": loss.item()}

    plan = Plan(steps, warmup=3, save_every=save_every)
    curve = loop.train(
        Task(
            name="training",
            modules={"head": module},
            optimizer=optimizer,
            plan=plan,
            step=gradients,
        ),
        checkpoint,
        begun=begun,
    )
    return module, curve, checkpoint


def test_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    whole, curve, _ = regression(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "cut", killed_at=9)
    resumed, again, checkpoint = regression(tmp_path / "cut")
    assert again == curve and len(curve) == 12
    assert torch.equal(whole.weight, resumed.weight)
    assert curve[-1]["loss"] < curve[0]["loss"]
    checkpoint.remove()
    assert not checkpoint.path.exists()


def test_nan_stops_names_the_step_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(loop.TrainingError, match="nan at step 7.*last good step"):
        regression(tmp_path / "out", broken_at=6)
    kept = torch.load(tmp_path / "out.checkpoint", weights_only=True)
    assert len(kept["curve"]) == 4
    assert all(torch.isfinite(value).all() for value in kept["modules"]["head"].values())


def test_nan_in_the_gradient_alone_stops_too(tmp_path):
    module = nn.Linear(1, 1)

    def gradients(step):
        module.weight.grad = torch.full_like(module.weight, float("inf"))
        return {"loss": 1.0}

    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    before = module.weight.detach().clone()
    with pytest.raises(loop.TrainingError, match="norm is inf at step 1.*no checkpoint"):
        loop.train(
            Task(
                name="training",
                modules={"m": module},
                optimizer=optimizer,
                plan=Plan(3),
                step=gradients,
            ),
            checkpoints.beside(tmp_path / "o", "a"),
        )
    assert torch.equal(module.weight, before)


def test_checkpoint_of_other_settings_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "out", killed_at=5)
    with pytest.raises(MismatchError, match="other data or settings"):
        regression(tmp_path / "out", digest="b")
    left = checkpoints.beside(tmp_path / "out", "b")
    with pytest.raises(OutputExistsError, match="--resume"):
        left.begin(resume=False, overwrite=False)
    assert left.begin(resume=False, overwrite=True) is None and not left.path.exists()


def test_broken_checkpoint_is_one_line(tmp_path):
    checkpoint = checkpoints.beside(tmp_path / "out", "a")
    checkpoint.save({"curve": []})
    good = checkpoint.path.read_bytes()
    place = good.rindex(b"PK\x06\x06") + 48  # where the list of the archive begins
    nowhere = good[:place] + b"\xff" * 8 + good[place + 8 :]
    for content in (b"", b"nonsense", b"PK\x03\x04broken", nowhere):
        checkpoint.path.write_bytes(content)
        with pytest.raises(InputError, match="broken or no checkpoint"):
            checkpoint.load()


def test_rates():
    plan = Plan(10, warmup=4)
    assert [round(plan.factor(step), 3) for step in range(4)] == [0.2, 0.4, 0.6, 0.8]
    assert plan.factor(4) == 1.0 and plan.factor(7) == pytest.approx(0.5)
    assert 0 < plan.factor(9) < 0.1
    assert Plan(10, shape="poly").factor(5) == pytest.approx(0.5**0.9)
    assert Plan(10, shape="linear").factor(5) == 0.5
    assert Plan(10, shape="constant").factor(9) == 1.0


def test_the_rate_of_a_second_phase_is_that_of_a_training_of_its_own():
    plan, first, second = Plan(310, warmup=2, first=300), Plan(300, warmup=2), Plan(10, warmup=2)
    alone = [*map(first.factor, range(300)), *map(second.factor, range(10))]
    assert [*map(plan.factor, range(310))] == alone


def test_thinned_keeps_ends_means_and_rare_measures():
    curve = [{"step": step, "loss": float(step)} for step in range(1, 1001)]
    curve[499]["miou"] = 0.25
    thin = loop.thinned(curve, 100)
    assert len(thin) == 100 and thin[-1]["step"] == 1000
    assert thin[0]["loss"] == 5.5
    assert [record["miou"] for record in thin if "miou" in record] == [0.25]


RANKS = """
import sys, torch
from torch import nn
from ovtool.training import checkpoints, distributed, loop
from pathlib import Path
from ovtool.training.loop import Task

with distributed.joined(torch.device("cpu")) as ranks:
    torch.manual_seed(ranks.rank)
    module = nn.Linear(3, 1).double()
    if ranks.world == 1:
        torch.manual_seed(0)
        module = nn.Linear(3, 1).double()
    distributed.share(module, ranks)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    def gradients(step):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step)).double()
        x = x.chunk(ranks.world)[ranks.rank]
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        total = distributed.sum_over_ranks(loss.detach(), ranks) / ranks.world
        return {"loss": total.item()}
    checkpoint = checkpoints.beside(Path(sys.argv[1]), "a")
    task = Task("training", {"m": module}, optimizer, loop.Plan(5), gradients)
    curve = loop.train(task, checkpoint, ranks=ranks)
    if ranks.is_first:
        print(curve[-1]["loss"], *module.weight.flatten().tolist())
"""


def test_two_ranks_are_one_process_with_the_whole_batch(tmp_path, in_ranks):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    together = subprocess.run(
        [*torchrun, script, tmp_path / "two"],
        capture_output=True, text=True, cwd=ROOT, env=_environment(), timeout=300,
    )  # fmt: skip
    assert together.returncode == 0, together.stderr
    alone = in_ranks(1, script, tmp_path / "one")
    found = [[float(value) for value in said.split()] for said in (alone, together.stdout)]
    assert len(found[0]) == 4
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
