"""Which shard of a run this process is: as it was said, or as the scheduler of a job array says."""

import os

from ovtool.errors import UsageError

_TASK = "SLURM_ARRAY_TASK_"


def place(shard: str | None) -> tuple[int, int]:
    """The number of a shard, from 1, and how many there are; 1 of 1 for None.

    Args:
        shard: `3/16`; or `slurm`, which is read from SLURM_ARRAY_TASK_ID, _MIN, _STEP and _COUNT.

    Raises:
        UsageError: the variables of a job array are not set.
    """
    if shard is None:
        return 1, 1
    if shard != "slurm":
        own, of = shard.split("/")
        return int(own), int(of)
    try:
        task, count = _number("ID"), _number("COUNT")
        number = (task - _number("MIN", 0)) // max(_number("STEP", 1), 1) + 1
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"--shard slurm reads {_TASK}ID and {_TASK}COUNT, and one of them is not set to a number "
            f"({error}); start it with sbatch --array"
        ) from None
    if not 1 <= number <= count:
        raise UsageError(
            f"task {task} is none of {count} of a job array; give --array 0-{max(count, 1) - 1}, or --shard I/N"
        )
    return number, count


def _number(name: str, default: int | None = None) -> int:
    value = os.environ.get(_TASK + name)
    if value is None and default is not None:
        return default
    return int(os.environ[_TASK + name])
