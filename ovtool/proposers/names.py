"""The names of proposers, judged without loading what they name."""

from __future__ import annotations

from pathlib import Path

from ovtool.errors import UsageError
from ovtool.models import sources


def choices() -> tuple[str, ...]:
    """The names that a proposer can have here."""
    tiny = ("tiny",) if tiny_weights().is_file() else ()
    return ("regions", "merging", *tiny, "maskformer[:ID]", "sam[:ID]", "FILE.safetensors")


def tiny_weights() -> Path:
    """Where the bundled proposer lies, if it does."""
    return sources.bundled_folder() / "tiny_proposer.safetensors"


def check_name(name: str) -> None:
    """Raises UsageError for a name that means no proposer here."""
    known = name in ("regions", "merging", "maskformer", "sam") or name.startswith(
        ("maskformer:", "sam:")
    )
    is_tiny = name == "tiny" and tiny_weights().is_file()
    if not (known or is_tiny or Path(name).suffix == ".safetensors"):
        raise UsageError(f"unknown proposer '{name}'; choose from {', '.join(choices())}")
