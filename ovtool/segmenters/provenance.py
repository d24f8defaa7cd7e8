"""The `info` of what a segmenter makes: all that shapes the result, and no path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovtool.formats import parts
from ovtool.inputs.words import WordSet
from ovtool.runtime import runs
from ovtool.settings.layers import Origin, as_data

if TYPE_CHECKING:  # loaded where it is used: bad arguments need not wait for it
    from ovtool.models.clip import Clip


def info(
    method: object,
    origins: Mapping[str, Origin],
    settled: Mapping[str, Any],
    more: Mapping[str, Any],
    model: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The `info` of an output of `segment`.

    Args:
        method: The settings of the method.
        origins: Where the value of each of its fields comes from, as `layers.layered` says.
        settled: The fields that the model settled, and the digests that take the place of paths.
        more: What shapes the result beside the method.
        model: The CLIP, None without one.
    """
    data = as_data(method, {name: str(value) for name, value in settled.items()}) | dict(settled)
    by_model: dict[str, Origin] = {
        name: "model"
        for name in origins
        if getattr(method, name) is None and settled.get(name) is not None
    }
    not_default = {
        k: origin for k, origin in {**origins, **by_model}.items() if origin != "default"
    }
    return runs.provenance("segment", {"method": data, "origins": not_default, **more}, model)


def of_clip_run(
    method: object,
    origins: Mapping[str, Origin],
    settled: Mapping[str, Any],
    words: WordSet,
    clip: Clip,
    batch_size: int,
) -> dict[str, Any]:
    """The `info` of a segmenter that compares images with words; `method`, `origins` and `settled` as of
    `info`."""
    more = {**of_words(words), "precision": of_precision(clip.dtype), "batch_size": batch_size}
    return info(method, origins, settled, more, of_clip(clip))


def of_words(words: WordSet) -> dict[str, Any]:
    """What shapes the result beside the categories: the background, and the lists of each image."""
    shapes: dict[str, Any] = {"background": list(words.background), **of_only(words)}
    if words.per_image is not None:
        shapes["classes_per_image"] = parts.settings_digest(
            {name: list(indices) for name, indices in words.per_image.items()}
        )
    return shapes


def of_only(words: WordSet) -> dict[str, list[str]]:
    """The words that are written, where not all are."""
    return {} if words.only is None else {"only": [words.classes[k][0] for k in sorted(words.only)]}


def of_clip(clip: Clip) -> dict[str, str]:
    """The name of a CLIP, or of the file that it was loaded from, and its fingerprint."""
    name = Path(clip.name).name if Path(clip.name).exists() else clip.name
    return {"name": name, "fingerprint": clip.fingerprint}


def of_precision(dtype: object) -> str:
    """A number type in words: `float32`."""
    return str(dtype).removeprefix("torch.")
