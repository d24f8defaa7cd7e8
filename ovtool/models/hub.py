"""Networks of transformers by the hub's name or a folder: where they are, how they come, and how they are loaded.

Transformers is imported only after the files are there, so that a name that cannot be had fails at once.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ovtool.errors import ModelError
from ovtool.models import sources

CONFIG = "config.json"
# what every loader of transformers is given: nothing is fetched, and code of a repository is neither run
# nor asked about on stdin
DOOR: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")


def is_cached(name: str) -> bool:
    """Whether configuration and weights of a hub's repository are in the local cache."""
    kept = (sources.cached_file(name, files) for files in ((CONFIG,), WEIGHTS))
    return all(path is not None for path in kept)


def obtain(name: str) -> str:
    """What `from_pretrained(..., local_files_only=True)` takes: a folder, or a name whose files are in
    the cache, fetched if need be.

    Raises ModelError, within 10 seconds where there is no network, with the command that fetches it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = None if (folder / CONFIG).is_file() else CONFIG
        if missing is None and not any((folder / weights).is_file() for weights in WEIGHTS):
            missing = WEIGHTS[0]
        if missing is not None:
            raise ModelError(f"{folder} has no {missing}; name a folder that save_pretrained made")
        return str(folder)
    if name.startswith(("/", "./", "../", "~")) or name.count("/") != 1 or not all(name.split("/")):
        raise ModelError(f"no model at {name}; give a folder that exists, or ORG/NAME of the hub")
    if is_cached(name):
        return name
    mend = (
        f"fetch it where there is a network with `hf download {name}`, or give --proposer regions"
    )
    if not sources.hub_answers():
        raise ModelError(f"the weights of {name} are not here and the hub does not answer; {mend}")
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, allow_patterns=["*.json", "*.safetensors"])
        if not is_cached(name):  # an old repository without safetensors
            snapshot_download(name, allow_patterns=["*.json", "*.bin"])
    except Exception as error:  # the library raises what its networks raise
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot fetch {name}: {reason}; {mend}") from error
    return name


def load(
    name: str, kind: str, title: str, network_class: str, check: Callable[[Any], None] | None = None
) -> tuple[Any, Any]:
    """A network of transformers and its image processor, in eval mode, without gradients.

    Args:
        name: its name on the hub, or a folder.
        kind: the `model_type` that its configuration must have.
        title: what it is called in messages.
        network_class: transformers' class.
        check: raises an error for a configuration that must not be loaded.

    Raises:
        ModelError: in one line with the mend, for one that is not at hand, of another kind or broken.
    """
    place = obtain(name)
    quiet()
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(place, **DOOR)
        if config.model_type != kind:
            raise ModelError(f"{name} is a {config.model_type}, not a {title}; name another model")
        if check is not None:
            check(config)
        processor = transformers.AutoImageProcessor.from_pretrained(place, **DOOR)
        network = getattr(transformers, network_class).from_pretrained(place, **DOOR)
    except ModelError:
        raise
    except Exception as error:  # transformers raises what its parts raise
        raise cannot_load(name, error) from error
    return network.eval().requires_grad_(False), processor


_LONGEST_REASON = 300  # letters; libraries quote what they read


def cannot_load(what: str, error: Exception) -> ModelError:
    """The error, in one line, for whatever a library raised while it loaded `what`."""
    return ModelError(f"cannot load {what}: {reason(error)}")


def reason(error: Exception) -> str:
    """Why a file of a network cannot be read, as one line that gives none of the libraries' advice to trust it."""
    text = str(error).strip()
    if "custom code" in text:
        return "it needs code of its own, which ovtool never runs; name another model"
    if "weights_only" in text or isinstance(error, UnpicklingError):
        return "it is broken or holds more than tensors, and code is never unpickled; get it as .safetensors"
    return text.split("\n")[0][:_LONGEST_REASON] or type(error).__name__


def quiet() -> None:
    """Keeps transformers from writing bars and remarks on stderr, where people read ours."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
