"""The user's cache folder: what can be made again, kept between runs."""

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ovtool.errors import InputError
from ovtool.formats import atomic


def folder() -> Path:
    """``$OVTOOL_CACHE``, else ``$XDG_CACHE_HOME/ovtool``, else ``~/.cache/ovtool``; it need not
    exist.
    """
    if named := os.environ.get("OVTOOL_CACHE"):
        return Path(named).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "ovtool"
    return Path.home() / ".cache" / "ovtool"


def entry(section: str, key: object, suffix: str) -> Path:
    """The file of the cache that `key` (anything JSON can say) names in `section`."""
    digest = sha256(json.dumps(key, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    return folder() / section / f"{digest[:32]}{suffix}"


def read_text(path: Path) -> str | None:
    """What the entry holds, or None where there is none that can be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def write_bytes(path: Path, data: bytes) -> None:
    """Keep `data` in the entry, whole or not at all; a cache that cannot be written is no error."""
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, data)
