"""Exceptions to one line on stderr and an exit status, in one table, for every command.

0 done; 1 error; 2 usage; 3 done, but some items failed (a command says so by `typer.Exit(3)`);
130 interrupted; 141 broken pipe. The traceback is printed only with OVTOOL_DEBUG=1.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

import typer

from ovtool.cli import output
from ovtool.errors import OvtoolError, brief

_NOT_UTF8 = "error: an argument or a name has a byte that is not UTF-8 text; write it in UTF-8, or rename it"
INTERRUPTED = 130
BROKEN_PIPE = 141


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs `ovtool` with these arguments (default: those of the process); returns the exit status."""
    came: list[int] = []  # interrupts, which libraries in C turn into errors of their own

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    is_main = threading.current_thread() is threading.main_thread()
    is_usual = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, interrupt)
    try:
        from ovtool.cli.app import app

        status = typer.main.get_command(app).main(
            args=_given(arguments),
            prog_name="ovtool",
            standalone_mode=False,
        )
        if status == INTERRUPTED:  # Typer turns KeyboardInterrupt into this status
            raise KeyboardInterrupt
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk or a closed pipe behind stdout shows only here
        return status or 0
    except BaseException as error:
        return report(KeyboardInterrupt().with_traceback(error.__traceback__) if came else error)
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _given(arguments: Sequence[str] | None) -> list[str] | None:
    """The arguments for Typer; None on Windows for those of the process, whose home folders and patterns (`*.jpg`)
    it expands there, as no shell does."""
    if arguments is None and os.name == "nt":
        return None
    return [_at_home(own) for own in (sys.argv[1:] if arguments is None else arguments)]


def _at_home(argument: str) -> str:
    """An argument with the home folder for `~/`, which no shell puts there behind `--option=` or in quotes."""
    option, mark, value = argument.partition("=") if argument[:2] == "--" else ("", "", argument)
    return option + mark + (os.path.expanduser(value) if value.startswith("~/") else value)


def report(error: BaseException) -> int:
    """Prints the one line that a person needs (none for a broken pipe); returns the exit status."""
    if isinstance(error, SystemExit):
        if not isinstance(error.__context__, BrokenPipeError):  # which Typer turns into this
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        error = error.__context__
    for kind, describe in TABLE:
        if isinstance(error, kind):
            line, status = describe(error)
            break
    try:
        if sys.stderr is not None and line:
            if os.environ.get("OVTOOL_DEBUG", "0") not in ("", "0"):
                import traceback

                traceback.print_exception(error)
            print(output.plain(brief(" ".join(line.split()))), file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is left to read it; the exit status still tells
    if status != 0:
        _silence_stdout()
    return status


def _silence_stdout() -> None:
    """Sends what stdout still buffers to nowhere, so that Python's own flush at exit cannot fail."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: typer.TyperException) -> tuple[str, int]:
    """What Typer found wrong with the arguments, and where the help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ovtool"
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    return f"error: {message} (see `{command} --help`)", error.exit_code


def _system(error: OSError) -> tuple[str, int]:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"error: {where}{error.strerror or error}", 1


def _unexpected(error: BaseException) -> tuple[str, int]:
    hint = "(set OVTOOL_DEBUG=1 for the traceback)"
    return f"error: unexpected {type(error).__name__}: {error} {hint}", 1


# The first row that fits counts, so subclasses stand above their bases.
TABLE: tuple[tuple[type[BaseException], Callable[..., tuple[str, int]]], ...] = (
    (OvtoolError, lambda error: (f"error: {error}", error.exit_code)),
    (typer.TyperException, _usage),
    (typer.Abort, lambda error: ("aborted", 1)),
    (KeyboardInterrupt, lambda error: ("interrupted", INTERRUPTED)),
    (UnicodeEncodeError, lambda error: (_NOT_UTF8, 2)),
    (BrokenPipeError, lambda error: ("", BROKEN_PIPE)),
    (OSError, _system),
    (MemoryError, lambda error: ("error: out of memory; use fewer or smaller images at once", 1)),
    (BaseException, _unexpected),
)
