"""Single files of open_clip, read without the package around them.

What open_clip knows of names, weights and words lies in light files, but its package imports torchvision and
transformers, for seconds. Where the package is loaded already, its own modules are given.
"""

import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "open_clip"
_HEAVY = (
    "huggingface_hub",
    "safetensors.torch",
)  # what open_clip.pretrained downloads and reads with
_ALIAS = "ovtool.runtime._open_clip"


def module(name: str) -> ModuleType:
    """The module `open_clip.NAME`: one that imports no other part of the package than light ones.

    Raises ImportError where open_clip is not installed.
    """
    own = f"{_PACKAGE}.{name}"
    if own in sys.modules:
        return sys.modules[own]
    if _ALIAS not in sys.modules:
        package = ModuleType(_ALIAS)  # a package of the same files that begins with nothing
        package.__path__ = [str(_folder())]
        sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.{name}")


def weights() -> ModuleType:
    """The module `open_clip.pretrained` for what it lists: where torch is not loaded, one that does without it,
    and cannot download.

    Raises ImportError where open_clip is not installed.
    """
    if "torch" in sys.modules:
        return module("pretrained")
    modules: dict[str, Any] = sys.modules
    own = {name: modules.get(name) for name in _HEAVY}
    try:
        modules.update(dict.fromkeys(_HEAVY))  # as if they were not installed
        return module("pretrained")
    finally:
        for name, loaded in own.items():
            del modules[name]
            if loaded is not None:
                modules[name] = loaded
        modules.pop(f"{_ALIAS}.pretrained", None)  # whoever downloads needs a whole one


def _folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "open_clip is not installed; install it with `pip install open_clip_torch`"
        )
    return Path(spec.submodule_search_locations[0])


@functools.cache
def architectures() -> tuple[str, ...]:
    """The names of all architectures that open_clip knows."""
    return tuple(sorted(file.stem for file in (_folder() / "model_configs").glob("*.json")))


def configuration(architecture: str) -> dict[str, Any]:
    """The configuration of one of `architectures`, a new copy each time."""
    file = _folder() / "model_configs" / f"{architecture}.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def pretrained(architecture: str, tag: str) -> Mapping[str, Any]:
    """Where weights come from and how images are normalised for them, empty for a tag that is not known."""
    settings: Mapping[str, Any] = module("pretrained").get_pretrained_cfg(architecture, tag)
    return settings
