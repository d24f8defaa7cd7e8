"""`python -m ovtool`, which is also what the `ovtool` script calls (torchrun needs it)."""

import os
import sys


def main() -> int:
    """Runs the command line on `sys.argv` and returns its exit status."""
    # threads that have no work sleep: where a processor is shared, those that wait awake take the time of
    # those that work (up to half of a run)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ovtool.cli.errors import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
