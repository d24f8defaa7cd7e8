"""The frame around every training: outputs, digest, resume, memory, lost processes, and what is left behind."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from ovtool.errors import MismatchError, OutputExistsError, OvtoolError, UsageError
from ovtool.runtime.progress import no_progress
from ovtool.settings.shared import Compute, Run
from ovtool.training import distributed, run
from ovtool.training.checkpoints import Checkpoint
from ovtool.training.distributed import Ranks
from ovtool.training.loop import Plan, Task, TrainingError

SHAPES = {"class": "Lines", "steps": 6, "data": "abc"}


def framed(tmp_path, name="x.safetensors", shapes=SHAPES, **options):
    outputs = run.check_outputs(tmp_path / name, options.get("overwrite", False))
    how = {name: options.pop(name) for name in ("resume", "overwrite") if name in options}
    return run.Frame(outputs, shapes, "train-lines", Run(**how), **options)


def line(steps=6, save_every=2, before=lambda step: None, slope=1.0):
    """A training whose data depend on the step alone; `before` is called first in each step."""
    torch.manual_seed(0)
    module = nn.Linear(3, 1)

    def gradients(step):
        before(step)
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (module(x) - slope * x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        return {"loss": loss.item()}

    return Task(
        name="training the line",
        modules={"line": module},
        optimizer=torch.optim.AdamW(module.parameters(), lr=0.05),
        plan=Plan(steps, save_every=save_every),
        step=gradients,
        memory="a smaller --batch-size, or fewer points",
    )


def saved(task):
    """Writes the weights and the header as JSON."""

    def save(path, settings):
        weights = task.modules["line"].weight.tolist()
        path.write_text(json.dumps({"weights": weights, "settings": settings}))

    return save


def raises(error, at):
    """Raises in one step."""

    def before(step):
        if step == at:
            raise error

    return before


class Cut(Exception):
    """Stands for a kill."""


def test_outputs_are_checked_before_any_work(tmp_path):
    outputs = run.check_outputs(str(tmp_path / "x.safetensors"), False)
    assert outputs == run.Outputs(tmp_path / "x.safetensors", tmp_path / "x.png")
    outputs.curve.touch()
    with pytest.raises(OutputExistsError, match="x.png exists"):
        run.check_outputs(outputs.file, False)
    assert run.check_outputs(outputs.file, True) == outputs
    with pytest.raises(UsageError, match="x.png would hold two outputs"):
        run.check_outputs(tmp_path / "x.png", True)


def test_a_training_leaves_its_file_and_its_curve_alone(tmp_path):
    frame, task = framed(tmp_path), line()
    curve = run.complete(frame, task, saved(task), more={"measured": 6})
    left = json.loads(frame.outputs.file.read_text())["settings"]
    assert {name: left[name] for name in SHAPES} == SHAPES and left["measured"] == 6
    assert [record["step"] for record in left["curve"]] == [1, 2, 3, 4, 5, 6]
    assert left["curve"][-1]["loss"] == pytest.approx(curve[-1]["loss"], rel=1e-5)
    assert Image.open(frame.outputs.curve).size == (960, 600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "x.safetensors"]


def test_the_digest_is_of_all_that_shapes_the_result(tmp_path, monkeypatch):
    digests = [
        framed(tmp_path).digest,
        framed(tmp_path, shapes={**SHAPES, "data": "abd"}).digest,
        framed(tmp_path, ranks=Ranks(0, 2, torch.device("cpu"))).digest,
        framed(tmp_path, ranks=Ranks(0, 1, torch.device("cuda"))).digest,
    ]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    digests.append(framed(tmp_path).digest)
    assert len(set(digests)) == 5
    elsewhere = framed(tmp_path, name="y.safetensors", resume=True, overwrite=True)
    assert elsewhere.digest == digests[-1]  # the place does not count, nor how the run goes


def test_a_training_that_was_cut_off_goes_on_to_the_same_bytes(tmp_path):
    whole, task = framed(tmp_path, "whole.safetensors"), line()
    run.complete(whole, task, saved(task))
    cut = framed(tmp_path)
    with pytest.raises(Cut):
        run.complete(cut, line(before=raises(Cut, 5)), saved(task))
    assert cut.checkpoint().path == Path(f"{cut.outputs.file}.checkpoint")
    with pytest.raises(OutputExistsError, match="go on with --resume"):
        run.begin(cut)
    again = framed(tmp_path, resume=True)
    assert run.begin(again).steps == 4
    task = line()
    run.complete(again, task, saved(task))
    for ending in ("safetensors", "png"):
        one, other = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("whole", "x"))
        assert one == other
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_checkpoint_of_other_data_or_threads_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Cut):
        run.train(line(before=raises(Cut, 3)), run.begin(framed(tmp_path)))
    with pytest.raises(MismatchError, match="other data or settings"):
        run.begin(framed(tmp_path, shapes={**SHAPES, "data": "abd"}, resume=True))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        with pytest.raises(MismatchError, match="other data or settings"):
            run.begin(framed(tmp_path, resume=True))
    assert run.begin(framed(tmp_path, resume=True)).steps == 2
    assert run.begin(framed(tmp_path, overwrite=True)).state is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nand more"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_out_of_memory_is_one_line_that_names_the_checkpoint(tmp_path, error):
    frame = framed(tmp_path)
    with pytest.raises(OvtoolError) as told:
        run.train(line(before=raises(error, 1)), run.begin(frame))
    said = re.sub(": [0-9.]+ GB were free;", ";", str(told.value))  # on a CPU of Linux
    assert said == (
        "out of memory while training the line; give a smaller --batch-size, or fewer points (no "
        "checkpoint was written yet)"
    )
    with pytest.raises(OvtoolError) as told:
        run.train(line(before=raises(error, 3)), run.begin(frame))
    path = frame.checkpoint().path
    assert f"({path} holds the last step saved; go on with --resume)" in str(told.value)
    assert "\n" not in str(told.value)


def test_work_around_the_training_may_run_out_of_memory_too(tmp_path):
    with (
        pytest.raises(
            OvtoolError,
            match="out of memory while encoding images(: .* were free)?; give a smaller",
        ),
        run.plain_errors(framed(tmp_path), "encoding images"),
    ):
        raise MemoryError


def test_a_lost_process_ends_the_others_in_one_line(tmp_path):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1")
    alone = framed(tmp_path)
    with pytest.raises(RuntimeError, match="closed by peer"):  # alone there is no other
        run.train(line(before=raises(lost, 0)), run.begin(alone))
    of_two = framed(tmp_path, ranks=Ranks(1, 2, torch.device("cpu")))
    begun = run.Begun(of_two.checkpoint(), None, of_two)
    with pytest.raises(TrainingError, match="another process .* so process 1 does too \\(no check"):
        run.train(line(before=raises(lost, 0)), begun)
    with pytest.raises(ZeroDivisionError):  # what is wrong in the program stays as it is
        run.train(line(before=raises(ZeroDivisionError(), 0)), begun)


def test_a_loss_that_is_not_finite_keeps_the_checkpoint(tmp_path):
    frame, task = framed(tmp_path), line()
    step = task.step
    broken = replace(
        task, step=lambda s: {"loss": step(s)["loss"] * (float("nan") if s == 3 else 1)}
    )
    with pytest.raises(TrainingError, match="the loss is nan at step 4"):
        run.complete(frame, broken, saved(task))
    assert frame.checkpoint().path.exists() and not frame.outputs.file.exists()


def two_phases(frame, before=lambda step: None):
    """A tower, then prompts for it, as `tune-prompts --train tower-then-prompts` does."""
    begun = [run.begin(frame, phase) for phase in ("tower", "")]
    tower = line(steps=4)
    first = run.train(tower, begun[0])
    prompts = line(steps=4, slope=2.0, before=before)
    second = run.train(prompts, begun[1])
    run.finish(frame, run.joined_curves(first, second), saved(prompts), *begun)
    return first, second


def test_two_phases_have_a_checkpoint_each(tmp_path):
    first, second = two_phases(framed(tmp_path, "whole.safetensors"))
    joined = json.loads((tmp_path / "whole.safetensors").read_text())["settings"]["curve"]
    assert [record["step"] for record in joined] == list(range(1, 9))
    assert [record["step"] for record in second] == [1, 2, 3, 4]  # its own curve is as it was
    with pytest.raises(Cut):
        two_phases(framed(tmp_path), before=raises(Cut, 3))
    names = sorted(path.name for path in tmp_path.glob("*.checkpoint"))
    assert names == ["x.safetensors.checkpoint", "x.safetensors.tower.checkpoint"]
    assert run.begin(framed(tmp_path, resume=True), "tower").steps == 4
    two_phases(framed(tmp_path, resume=True))
    assert (tmp_path / "x.safetensors").read_text() == (tmp_path / "whole.safetensors").read_text()
    assert not list(tmp_path.glob("*.checkpoint"))


@pytest.mark.parametrize("moment", ["curve", "file", "first checkpoint", "last checkpoint"])
def test_a_training_that_was_killed_while_it_finished_is_finished_by_resume(
    tmp_path, monkeypatch, moment
):
    out = tmp_path / "x.safetensors"

    def trained(resume):
        place = run.opened(out, Compute(device="cpu"), Run(resume=resume), no_progress)
        frame = place.frame(SHAPES, "train-lines", distributed.alone())
        first, last = line(), line(slope=2.0)
        begun = run.begin(frame, "first"), run.begin(frame)
        curves = [run.train(first, begun[0]), run.train(last, begun[1])]
        run.finish(frame, run.joined_curves(*curves), saved(last), *begun)

    def cut(*_, **__):
        raise Cut

    trained(False)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(whole) == ["x.png", "x.safetensors"]
    for path in tmp_path.iterdir():
        path.unlink()
    with monkeypatch.context() as patch:
        if moment == "curve":
            patch.setattr(run.plots, "losses", cut)
        elif moment == "file":
            patch.setattr(sys.modules[__name__], "saved", lambda task: cut)
        else:
            remove, name = (
                Checkpoint.remove,
                {"first checkpoint": "first"}.get(moment, "tensors.ch"),
            )

            def kill(checkpoint):
                if name in checkpoint.path.name:
                    raise Cut
                remove(checkpoint)

            patch.setattr(Checkpoint, "remove", kill)
        with pytest.raises(Cut):
            trained(False)
    if moment.endswith("checkpoint"):
        with pytest.raises(OutputExistsError, match="x.safetensors exists"):
            trained(False)
    trained(True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    with pytest.raises(OutputExistsError):  # it is done, and nothing says that it was cut off
        trained(True)


def test_only_the_first_process_writes(tmp_path):
    frame = framed(tmp_path, ranks=Ranks(1, 2, torch.device("cpu")))
    run.finish(frame, [{"step": 1, "loss": 1.0}], lambda *_: pytest.fail("it wrote"))
    assert not list(tmp_path.iterdir())


def test_what_a_training_left_as_plain_data(tmp_path):
    outputs = run.check_outputs("x.safetensors", True)
    plan = run.Trained(outputs, {"line": 4}, {"images": 3, "held_out": None}, 6, is_plan=True)
    assert plan.loss is None and plan.after == {}
    done = run.Trained(
        outputs, {"line": 4}, {"images": 3}, 6, {"loss": 0.5, "miou": 0.2}, {"miou": 0.1}, {"a": 1}
    )
    assert done.loss == 0.5 and done.after == {"miou": 0.2}
    data = json.loads(json.dumps(done.as_data()))
    assert data == {
        "out": "x.safetensors", "curve_file": "x.png", "parameters": {"line": 4}, "images": 3,
        "steps": 6, "before": {"miou": 0.1}, "last": {"loss": 0.5, "miou": 0.2}, "a": 1,
        "failures": [], "is_plan": False,
    }  # fmt: skip
