"""What a command says: data on stdout, everything for people on stderr.

`-v` and `-q` are counted; the log level is 30 - 10 * (v - q). At the usual level (30, warnings)
tables, messages and progress bars are shown; `-q` hides them, and `-v` adds what the stages log.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ovtool.errors import InputError, brief

_FAILURES_SHOWN = 20
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_verbosity = 0  # count of -v less count of -q


def set_verbosity(steps: int) -> None:
    """Sets counted -v less counted -q, and sends the log of `ovtool` to stderr at that level."""
    global _verbosity
    _verbosity = steps
    import logging

    logger = logging.getLogger("ovtool")
    logger.handlers[:] = [_log_handler()]
    logger.propagate = False
    logger.setLevel(min(max(30 - 10 * steps, logging.DEBUG), logging.CRITICAL))


def add_verbosity(steps: int) -> None:
    """Adds to what was set: `ovtool -v segment -v` counts both."""
    set_verbosity(_verbosity + steps)


def is_quiet() -> bool:
    """True where `-q` was given (and not outweighed by `-v`)."""
    return _verbosity < 0


def _log_handler() -> Any:
    import logging

    class Stderr(logging.Handler):
        """One line per record; warnings and errors say that they are."""

        def emit(self, record: logging.LogRecord) -> None:
            prefix = "error: " if record.levelno >= logging.ERROR else "warning: "
            _write((prefix if record.levelno >= logging.WARNING else "") + record.getMessage())

    return Stderr()


def plain(text: str, escape: Callable[[re.Match[str]], str] | None = None) -> str:
    """A text in which nothing commands a terminal: escape sequences, which names and words of files may hold,
    marks that turn the direction of writing, and halves of characters are written as `\\x1b`."""
    return _COMMANDS.sub(escape or (lambda sign: ascii(sign[0])[1:-1]), text)


def _write(text: str) -> None:
    """Writes a line on stderr, above any progress bar."""
    if sys.stderr is None:
        return
    text = plain(brief(text))
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


def message(text: str) -> None:
    """Prints a line for people on stderr, unless `-q` was given."""
    if not is_quiet():
        _write(text)


def detail(text: str) -> None:
    """Prints a line for people on stderr if `-v` was given."""
    if _verbosity > 0:
        _write(text)


def defect(text: str) -> None:
    """Prints what is wrong on stderr, however quiet: the answer that was asked for."""
    _write(f"error: {text}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on stderr, unless `-q`; the first column is flush left, the others right."""
    for line in _lines(header, rows):
        message(line)


def answer(
    header: Sequence[str], rows: Sequence[Sequence[str]], *notes: str, as_json: bool = False
) -> None:
    """Prints the table that a command was asked for, and lines below it, on stdout, however quiet; on stderr
    where stdout holds the JSON (`as_json`), unless `-q`."""
    for line in (*_lines(header, rows), *notes):
        if as_json:
            message(line)
        else:
            _print(line)


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    own = [[plain(brief(re.sub(r"\s", " ", cell))) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in own) for i in range(len(header))]
    lines = []
    for row in own:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def measures(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Prints shares of the data held out, before and after a training; nothing without any."""
    if before and after:
        rows = [
            (name, f"{100 * before[name]:.1f} %", f"{100 * share:.1f} %")
            for name, share in after.items()
        ]
        table(("held out", "before", "now"), rows)


def written(outputs: Any, is_plan: bool) -> None:
    """Prints where a training wrote, or would write, its file and its curve."""
    verb = "would write" if is_plan else "written:"
    message(f"{verb} {outputs.file}, {outputs.curve}")


def per_cent(value: float | None) -> str:
    """A fraction for a table, a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"


def interval(ends: Mapping[str, float | None] | None) -> str:
    """An interval of fractions for a table, nothing where there is none."""
    if ends is None or ends["low"] is None:
        return ""
    return f"[{per_cent(ends['low'])}, {per_cent(ends['high'])}]"


def measured(value: float | None, ends: Mapping[str, float | None]) -> str:
    """A fraction with its interval, for a table."""
    return f"{per_cent(value)} {interval(ends)}".rstrip()


def print_json(document: object) -> None:
    """Prints one JSON document on stdout.

    Raises:
        InputError: stdout is closed.
    """
    import json

    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2)
    _print(plain(text, lambda sign: f"\\u{ord(sign[0]):04x}"))


def _print(text: str) -> None:
    if sys.stdout is None:
        raise InputError("standard output is closed, so there is nowhere to write the answer")
    sys.stdout.write(plain(text) + "\n")


def print_facts(facts: Mapping[str, Any], indent: str = "") -> None:
    """Prints nested facts on stdout for people: a line for each value, what is inside indented."""
    for key, value in facts.items():
        name = f"{indent}{key}:"
        items = value if isinstance(value, list | tuple) else [value]
        if not any(isinstance(item, Mapping) for item in items):
            _print(f"{name} {', '.join(_fact(item) for item in items) or 'none'}")
            continue
        _print(name)
        for item in items:
            if isinstance(item, Mapping) and value is not item:
                _print(f"{indent}  - {'; '.join(f'{k} {_fact(v)}' for k, v in item.items())}")
            elif isinstance(item, Mapping):
                print_facts(item, indent + "  ")


def _fact(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_fact(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


@contextmanager
def progress(
    total: int | None, description: str, unit: str = "image"
) -> Iterator[Callable[..., None]]:
    """A bar on stderr; yields a callback `advance(n=1)`.

    There is no bar where stderr is no terminal, and none with `-q`.
    """
    from tqdm import tqdm

    with tqdm(
        total=total,
        desc=description,
        unit=unit,
        disable=True if is_quiet() or sys.stderr is None else None,
    ) as bar:

        def advance(n: int = 1) -> None:
            bar.update(n)

        yield advance


def say_failures(failures: Sequence[Mapping[str, str]]) -> None:
    """Says why images failed: of the first few, and how many more there are."""
    for failure in failures[:_FAILURES_SHOWN]:
        message(f"failed: {failure['reason']}")
    if len(failures) > _FAILURES_SHOWN:
        message(f"failed: {len(failures) - _FAILURES_SHOWN} more, listed in info.ovtool.failures")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: `1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
