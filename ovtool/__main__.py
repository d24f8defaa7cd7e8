"""`python -m ovtool`, which is also what the `ovtool` script calls (torchrun needs it)."""

import sys


def main() -> int:
    """Runs the command line on `sys.argv` and returns its exit status."""
    from ovtool.cli.errors import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
