"""Text files that people write."""

from pathlib import Path

from ovtool.errors import InputError
from ovtool.formats import wrong_kind


def read(path: Path, missing: str = "") -> str:
    """The content of a UTF-8 file, without a byte-order mark.

    Args:
        path: The file.
        missing: What is said of it where it is not there, after its name.

    Raises:
        InputError: It is not there, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}{missing}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def lines(path: Path, missing: str = "") -> list[str]:
    """The lines of a UTF-8 file that is no JSON, as `read` reads it."""
    text = read(path, missing)
    if what := wrong_kind.of_json(path):
        raise InputError(f"{path} {what}; needed here: plain text, an entry a line")
    return text.splitlines()
