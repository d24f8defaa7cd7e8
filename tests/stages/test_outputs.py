"""What all trainings do first: their outputs, and the model that a data set recommends."""

import pytest

from ovtool.errors import UsageError
from ovtool.settings.prompts import BackgroundPrompts
from ovtool.settings.segmenter import SegmenterTraining
from ovtool.settings.shared import Run
from ovtool.stages import (
    train_pacl,
    train_proposer,
    train_segmenter,
    tune_prompts,
)
from ovtool.training import run as trainings

BACKGROUND = {"kind": BackgroundPrompts()}


@pytest.mark.parametrize(
    "stage, options",
    [
        (train_pacl, {}),
        (train_proposer, {}),
        (train_segmenter, {}),
        (tune_prompts, {}),
        (tune_prompts, BACKGROUND),
    ],
    ids=["pacl", "proposer", "segmenter", "mask", "background"],
)
def test_a_result_that_ends_as_its_curve_is_refused(stage, options, tmp_path):
    out = tmp_path / "x.png"
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="x.png would hold two outputs of this command"):
            stage.run("nowhere.json", out=out, run=Run(overwrite=overwrite), **options)
    assert not out.exists()


class Opened(Exception):
    """Ends a training where its place is opened."""


@pytest.mark.parametrize(
    "stage, options, model",
    [
        (train_pacl, {}, "tiny"),
        (train_proposer, {}, "tiny"),
        (train_segmenter, {"training": SegmenterTraining(architecture="clip")}, "tiny"),
        (train_segmenter, {}, None),  # which stands on no CLIP
        (tune_prompts, {}, "tiny"),
    ],
)
def test_a_data_set_recommends_its_model(stage, options, model, tmp_path, monkeypatch):
    def opened(out, compute, run, progress):
        raise Opened(compute.model)

    monkeypatch.delenv("OVTOOL_MODEL", raising=False)
    monkeypatch.setattr(trainings, "opened", opened)
    with pytest.raises(Opened) as caught:
        stage.run("collage:train", out=tmp_path / "x.safetensors", **options)
    assert caught.value.args == (model,)
