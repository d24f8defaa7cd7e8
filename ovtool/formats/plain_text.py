"""Text files that people write."""

import sys
from pathlib import Path

from ovtool.errors import InputError
from ovtool.formats import wrong_kind


def read(path: Path, missing: str = "") -> str:
    """The content of a UTF-8 file, or of one of UTF-16 with a byte-order mark, as PowerShell writes it; without the mark.

    Args:
        path: The file.
        missing: What is said of it where it is not there, after its name.

    Raises:
        InputError: It is not there, cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
        is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}{missing}") from None
    except UnicodeDecodeError as error:
        if what := wrong_kind.of_beginning(path):
            raise InputError(f"{path} {what}") from None
        raise InputError(
            f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(path: Path, missing: str = "") -> list[str]:
    """The lines of a UTF-8 file that is no JSON, as `read` reads it."""
    text = read(path, missing)
    if what := wrong_kind.of_json(path):
        raise InputError(f"{path} {what}; needed here: plain text, an entry a line")
    return text.splitlines()


def of_stdin() -> bytes:
    """What standard input holds. Raises InputError where it is closed or cannot be read."""
    if sys.stdin is None:
        raise InputError("standard input is closed, so there is nothing to read; name a file for -")
    try:
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None:  # of a test or a notebook
            return sys.stdin.read().encode("utf-8", "surrogateescape")
        content: bytes = stream.read()
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read standard input: {getattr(error, 'strerror', None) or error}"
        ) from None
    return content
