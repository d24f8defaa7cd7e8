"""From a model's name to its weights: which CLIP is meant, what it is called, and where its files
are.

A name is ``photo`` or ``tiny`` (bundled), ``ARCH/PRETRAINED`` as open_clip spells it, ``hf-hub:ORG/NAME``, or a
local folder or file with an open_clip configuration beside it. Nothing here reads weights.
"""

import difflib
import functools
import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ovtool.errors import ModelError
from ovtool.models import sources
from ovtool.runtime import open_clip_files
from ovtool.settings.shared import Compute

PREFERRED = "ViT-B-16/openai"
ENVIRONMENT = "OVTOOL_MODEL"
OF_DATA_SETS = {"collage": "tiny"}  # data sets, and the model that each of them recommends
_REPOSITORY = re.compile(
    r"(?!.*(--|\.\.))\w[\w.-]*/\w([\w.-]{0,94}\w)?", re.ASCII
)  # as the hub names them

_logger = logging.getLogger("ovtool")


@dataclass(frozen=True)
class ModelSpec:
    """What a model's name means.

    `name` is its canonical spelling, as outputs hold it; of a local folder or file it is the last part of
    the path, after ``local-dir:`` where that would be the name of a bundled model. `architecture` and `pretrained` are open_clip's, of the kind
    ``pretrained``; `repository` is set for the kind ``hub``; `path` for ``local`` (a folder or a
    weights file).
    """

    name: str
    kind: Literal["bundled", "pretrained", "hub", "local"]
    architecture: str = ""
    pretrained: str = ""
    repository: str = ""
    path: Path | None = None


def choose(name: str | None, artefact: str | None = None) -> str:
    """The model to use: the one named, else the artefact's, else ``OVTOOL_MODEL``, else the
    default.

    The default is ``ViT-B-16/openai`` if its weights are in the local cache or the hub answers
    within 3 seconds, and otherwise the bundled `sources.FALLBACK`, with one warning for the whole process. Raises
    ModelError for an empty name.
    """
    if name is not None:
        if not name.strip():
            raise ModelError("--model is empty; name a model, such as tiny or ViT-B-16/openai")
        return name.strip()
    return artefact or os.environ.get(ENVIRONMENT, "").strip() or _default()


def for_data(compute: Compute, *inputs: object) -> Compute:
    """The same settings with the model that a data set recommends, where no model is named otherwise.

    Args:
        compute: the settings; a model in them stays, and `OVTOOL_MODEL` goes before a data set.
        inputs: what a stage reads: names of data sets, paths, or sequences of them.
    """
    if compute.model is not None or os.environ.get(ENVIRONMENT, "").strip():
        return compute
    for source in inputs:
        for text in source if isinstance(source, list | tuple) else (source,):
            model = OF_DATA_SETS.get(str(text).partition(":")[0])
            if model and not Path(str(text)).exists():
                return replace(compute, model=model)
    return compute


def meant(name: str | None, artefact: str | None = None) -> ModelSpec:
    """What `choose` gives, as `spec` says it.

    Args:
        name: what `--model` says, None if nothing.
        artefact: the model that an input names. It may be a file's name without its folder, for outputs
            hold no paths.

    Raises:
        ModelError: as `choose` and `spec`; for an artefact's model that is not found it asks for
            `--model`.
    """
    try:
        return spec(choose(name, artefact))
    except ModelError:
        if name is not None or artefact is None:
            raise
        raise ModelError(
            f"the input was made with the model {artefact}, which is not found here; say where it is "
            "with --model"
        ) from None


@functools.cache
def _default() -> str:
    """The model that is used when no one names one."""
    wanted = spec(PREFERRED)
    if sources.cached_weights(wanted.architecture, wanted.pretrained) or sources.hub_answers():
        return PREFERRED
    _logger.warning(
        "using the small bundled model '%s': the weights of %s are not in the cache and the hub does not "
        "answer; fetch them with `%s`, or name a model with --model",
        sources.FALLBACK,
        PREFERRED,
        sources.fetch_command(wanted.architecture, wanted.pretrained),
    )
    return sources.FALLBACK


def spec(name: str) -> ModelSpec:
    """What `name` means, without a look at the network.

    Raises ModelError for an architecture or a tag that open_clip does not know (naming close ones),
    for a network that is no vision transformer, and for a path where nothing is.
    """
    if name in sources.BUNDLED:
        return ModelSpec(name, "bundled")
    if name.startswith("hf-hub:"):
        repository = name.removeprefix("hf-hub:").strip("/")
        if not _REPOSITORY.fullmatch(repository):
            raise ModelError(f"'{name}' names no hub repository; write hf-hub:ORG/NAME")
        return ModelSpec(f"hf-hub:{repository}", "hub", repository=repository)
    path = Path(name.removeprefix("local-dir:")).expanduser()
    looks_local = name.startswith(("local-dir:", "/", "./", "../", "~")) or path.suffix in (
        *sources.WEIGHTS_SUFFIXES,
        ".pth",
    )
    if looks_local and not path.exists():
        raise ModelError(f"no model at {path}; give a folder or weights file that exists")
    if looks_local or (path.exists() and not _is_architecture(name.split("/")[0])):
        last = path.resolve().name if path.name in ("", "..") else path.name
        return ModelSpec(
            f"local-dir:{last}" if last in sources.BUNDLED else last, "local", path=path
        )
    return _pretrained_spec(name)


def _is_architecture(name: str) -> bool:
    return name in open_clip_files.architectures()


def _close(name: str, choices: list[str]) -> str:
    """The choices nearest to `name`, whatever their case, as the end of a sentence."""
    by_case = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(name.casefold(), list(by_case), n=4, cutoff=0.5)
    return ", ".join(by_case[match] for match in near)


def _pretrained_spec(name: str) -> ModelSpec:
    """The meaning of ARCH/PRETRAINED; ModelError where open_clip has no such thing."""
    architecture, _, tag = name.partition("/")
    if not _is_architecture(architecture):
        names = {name for name, _ in open_clip_files.weights().list_pretrained()}
        near = _close(architecture, [*sources.BUNDLED, *names])
        hint = f"did you mean {near}?" if near else "name it as open_clip does: ViT-B-16/openai"
        raise ModelError(f"unknown model '{name}'; {hint}")
    tags = open_clip_files.weights().list_pretrained_tags_by_model(architecture)
    known = {t.casefold().replace("-", "_"): t for t in tags}
    clean = tag.casefold().replace("-", "_")
    if clean not in known:
        if not tags:
            raise ModelError(f"open_clip has no weights for {architecture}; name another model")
        near = _close(clean, tags) or ", ".join(tags[:6])
        wrong = f"has no weights called '{tag}'" if tag else "is an architecture without weights"
        choices = ", ".join(f"{architecture}/{t}" for t in near.split(", "))
        raise ModelError(f"'{architecture}' {wrong}; choose from {choices}")
    sources.check_architecture(architecture, open_clip_files.configuration(architecture))
    return ModelSpec(f"{architecture}/{clean}", "pretrained", architecture, clean)
