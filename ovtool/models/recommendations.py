"""What a model recommends: settings that were measured to be best with it.

The published settings are the default of every CLIP. A CLIP whose file says otherwise, under
`recommended` in its header, is taken at its word; what was measured on a bundled model stands in
`weights/NAME.recommended.json` beside it. Both say class of settings, field, value:
`{"label_matching": {"background_weight": 0.75}}`. Beside them, `table` says what words mean (`WordTable.of`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from ovtool.formats import tensors
from ovtool.models import sources
from ovtool.settings import layers
from ovtool.settings.layers import Origin

if TYPE_CHECKING:  # it imports torch, which names of settings do not need
    from ovtool.models.clip import Clip

T = TypeVar("T")
Recommendations = Mapping[str, Mapping[str, Any]]


def of_bundled(name: str) -> Recommendations:
    """What was measured on a bundled model, class of settings to field to value; empty for none."""
    file = resources.files("ovtool.weights").joinpath(f"{name}.recommended.json")
    if not file.is_file():
        return {}
    read: Recommendations = json.loads(file.read_text(encoding="utf-8"))
    return read


def of_content(fingerprint: str) -> Recommendations:
    """What was measured on the bundled model that has these tensors; empty for none."""
    for name in sources.BUNDLED:
        path = sources.bundled_folder() / f"{name}.safetensors"
        if path.is_file() and tensors.read_header(path).get("fingerprint") == fingerprint:
            return of_bundled(name)
    return {}


def settled(
    clip: Clip, settings: T, published: Mapping[str, Any], without: Collection[str] = ()
) -> tuple[T, dict[str, Origin]]:
    """Settings with what was not given taken from the model, else as published.

    Args:
        clip: The model.
        settings: An object of a class of settings, such as `LabelMatching()`.
        published: The paper's values of fields that are None by default.
        without: Fields in whose place another was given, which are left open.

    Returns:
        The settings, and where the value of each field came from: given, model or default.

    Raises:
        UsageError: The model recommends a field that cannot be set so, or a value that is not allowed.
    """
    own = clip.recommended.get(_snake(type(settings).__name__), {})
    taken, known = (
        {name: value for name, value in layer.items() if name not in without}
        for layer in (own, published)
    )
    return layers.layered(settings, published=known, recommended=taken)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
