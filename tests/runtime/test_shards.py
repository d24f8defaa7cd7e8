"""Which shard a process is, by an option or by the variables of a job array."""

import pytest

from ovtool.errors import UsageError
from ovtool.runtime import shards
from ovtool.settings.shared import Run


@pytest.fixture
def array(monkeypatch):
    """Sets the variables of a job array."""

    def set_them(**values):
        for name in ("ID", "COUNT", "MIN", "STEP"):
            monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
        for name, value in values.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))

    return set_them


def test_a_shard_is_a_number_and_how_many_there_are():
    assert shards.place(None) == (1, 1) and shards.place("3/16") == (3, 16)


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1/0", "a/b", "1", "-1/2", "1/2/3", "SLURM"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match=f"--shard '{text}' is no shard; give its number and how"):
        Run(shard=text)


def test_an_address_belongs_to_ray():
    with pytest.raises(UsageError, match="--ray-address belongs to --engine ray"):
        Run(ray_address="auto")
    assert Run(engine="ray", ray_address="auto").ray_address == "auto"


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"ID": 0, "COUNT": 4, "MIN": 0}, (1, 4)),
        ({"ID": 4, "COUNT": 4, "MIN": 1}, (4, 4)),
        ({"ID": 20, "COUNT": 3, "MIN": 10, "STEP": 5}, (3, 3)),
        ({"ID": 3, "COUNT": 4}, (4, 4)),
    ],
)
def test_a_task_of_a_job_array_is_a_shard(array, values, expected):
    array(**values)
    assert shards.place("slurm") == expected


def test_outside_a_job_array_there_is_no_shard(array):
    array()
    with pytest.raises(UsageError, match="start it with sbatch --array"):
        shards.place("slurm")
    array(ID="x", COUNT=2)
    with pytest.raises(UsageError, match="not set to a number"):
        shards.place("slurm")
    array(ID=9, COUNT=4)
    with pytest.raises(UsageError, match="task 9 is none of 4 of a job array; give --array 0-3"):
        shards.place("slurm")
