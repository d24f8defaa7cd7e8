"""No training writes its loss curve over its own result."""

import pytest

from ovtool.errors import UsageError
from ovtool.settings.shared import Run
from ovtool.stages import (
    train_pacl,
    train_proposer,
    train_segmenter,
    tune_prompts,
)
from ovtool.trainers import background_prompts


@pytest.mark.parametrize(
    "stage", [train_pacl, train_proposer, train_segmenter, tune_prompts, background_prompts]
)
def test_a_result_that_ends_as_its_curve_is_refused(stage, tmp_path):
    out = tmp_path / "x.png"
    by_settings = stage in (train_proposer, train_segmenter)
    for overwrite in (False, True):
        how = {"run": Run(overwrite=overwrite)} if by_settings else {"overwrite": overwrite}
        with pytest.raises(UsageError, match="x.png would hold two outputs of this command"):
            stage.run("nowhere.json", out=str(out), **how)
    assert not out.exists()
