"""No training writes its loss curve over its own result."""

import pytest

from ovtool.errors import UsageError
from ovtool.settings.prompts import BackgroundPrompts
from ovtool.settings.shared import Run
from ovtool.stages import (
    train_pacl,
    train_proposer,
    train_segmenter,
    tune_prompts,
)

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
