"""Where the files of a CLIP are: bundled, in the libraries' caches, on the hub, or on this disk.

Real weights come through open_clip and huggingface_hub, with their caches and environment variables
(`HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`). Before any download the hub is asked, once and for 3
seconds at most, whether it is there at all: the libraries would wait far longer.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from ovtool.errors import ModelError
from ovtool.formats import strict_json
from ovtool.models import configurations
from ovtool.runtime import open_clip_files

BUNDLED = ("photo", "tiny")
FALLBACK = "photo"  # the bundled model where the hub is not reached
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt")
PROBE_SECONDS = 3.0
_CONFIG = "open_clip_config.json"
# timm's vision transformers whose patches ovtool reads: plain ones, and SigLIP's
_PLAIN_TRUNK = re.compile(r"vit_[a-z0-9]+_patch\d+_((clip|gap|siglip)_)?\d+(\.\w+)?", re.ASCII)
_HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Files:
    """What a CLIP is made of.

    `config` is open_clip's model configuration, `preprocess` its image normalisation (``mean``,
    ``std``, RGB in 0..1), `weights` a file of `WEIGHTS_SUFFIXES`, `tokenizer` where transformers finds
    the tokenizer (a folder, or a name of the hub), empty for open_clip's own.
    """

    config: Mapping[str, Any]
    weights: Path
    tokenizer: str
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def check_architecture(name: str, config: Mapping[str, Any]) -> None:
    """Raise ModelError unless the configuration is of a vision transformer that ovtool reads."""
    vision = config.get("vision_cfg", {})
    trunk = str(vision.get("timm_model_name") or "")
    if (
        isinstance(vision.get("layers"), list)
        or (trunk and not _PLAIN_TRUNK.fullmatch(trunk))
        or "multimodal_cfg" in config
    ):
        raise ModelError(
            f"{name} is not a plain vision transformer, and patch features and mask prompts need one; "
            "name one such as ViT-B-16/openai"
        )


def bundled_folder() -> Path:
    """The folder of the weights that come with ovtool."""
    return Path(str(resources.files("ovtool.weights")))


def bundled(name: str) -> Files:
    """The files of a model that comes with ovtool; ModelError where the installation lacks them."""
    folder = bundled_folder()
    weights, config = folder / f"{name}.safetensors", folder / f"{name}.json"
    if not weights.is_file() or not config.is_file():
        raise ModelError(f"the bundled model '{name}' is not in {folder}; install ovtool again")
    return _read(config, folder)(weights)


def local(path: Path) -> Files:
    """The files of a model in a folder, or of a weights file with its configuration beside it.

    The configuration is ``open_clip_config.json`` in the same folder, or, for a file
    ``x.safetensors``, ``x.json``. Raises ModelError where either is missing, or where several
    weights files lie in a folder.
    """
    folder = path if path.is_dir() else path.parent
    weights = _only_weights(path) if path.is_dir() else path
    if weights.suffix not in WEIGHTS_SUFFIXES:
        choices = ", ".join(WEIGHTS_SUFFIXES)
        raise ModelError(f"{weights} is no weights file that is safe to read; use one of {choices}")
    for config in (weights.with_suffix(".json"), folder / _CONFIG):
        if config.is_file():
            return _read(config, folder)(weights)
    raise ModelError(f"no configuration beside {weights}; put open_clip's {_CONFIG} there")


def _only_weights(folder: Path) -> Path:
    for suffix in WEIGHTS_SUFFIXES:
        files = sorted(folder.glob(f"*{suffix}"))
        named = [path for path in files if path.name in _HUB_WEIGHTS]
        if len(files) == 1 or named:
            return (named or files)[0]
        if files:
            names = ", ".join(path.name for path in files[:4])
            raise ModelError(f"{folder} holds several weights files ({names}); name one of them")
    raise ModelError(f"no weights in {folder}; it needs one .safetensors file and {_CONFIG}")


def _read(path: Path, own: Path | str) -> Callable[[Path], Files]:
    """What makes the files of a model of its weights: a configuration that came with them, read and checked.
    `own` is the model's folder or repository.

    Raises ModelError for one that is not whole, or that could do more than describe a network.
    """
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8"))
        config = content.get("model_cfg", content)
        preprocess = content.get("preprocess_cfg") or {}
        complete = {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} is no open_clip configuration: {error}") from error
    towers = [config.get(name) for name in ("vision_cfg", "text_cfg")]
    if not complete or not all(isinstance(tower, dict) for tower in towers):
        raise ModelError(f"{path} is no open_clip configuration: it needs model_cfg, whole")
    configurations.check(config, str(path))
    check_architecture(str(path), config)
    tokenizer = configurations.tokenizer_of(config, own, str(path))
    normalisation = configurations.preprocessing(preprocess, str(path))
    return lambda weights: Files(config, weights, tokenizer, normalisation)


def pretrained(architecture: str, tag: str) -> Files:
    """The files of open_clip's ARCH/PRETRAINED, downloaded if need be; QuickGELU is as the tag
    says.

    Raises ModelError, within 10 seconds where there is no network, with the command that fetches
    the weights.
    """
    settings = open_clip_files.pretrained(architecture, tag)
    config = open_clip_files.configuration(architecture)
    if settings.get("quick_gelu"):
        config["quick_gelu"] = True
    weights = cached_weights(architecture, tag) or _download(
        f"{architecture}/{tag}",
        fetch_command(architecture, tag),
        lambda: open_clip_files.module("pretrained").download_pretrained(settings),
    )
    tokenizer = str(config["text_cfg"].get("hf_tokenizer_name") or "")
    return Files(config, weights, tokenizer, settings)


def hub(repository: str) -> Files:
    """The files of an open_clip model on the hub, downloaded if need be; errors as for `pretrained`.

    The configuration comes first, and nothing else is fetched unless it passes the checks.
    """
    name, command = f"hf-hub:{repository}", f"hf download {repository}"
    config = cached_file(repository, (_CONFIG,)) or _download(
        name, command, lambda: _from_hub(repository, filename=_CONFIG)
    )
    of_weights = _read(config, repository)
    weights = cached_file(repository, _HUB_WEIGHTS) or _download(
        name, command, lambda: _from_hub(repository)
    )
    return of_weights(weights)


def _from_hub(repository: str, filename: str | None = None) -> str:
    fetched: str = open_clip_files.module("pretrained").download_pretrained_from_hf(
        repository, filename=filename
    )
    return fetched


def _download(name: str, command: str, fetch: Callable[[], str]) -> Path:
    """Fetch one file, if the hub is there; a failure is one line that names `command`."""
    mend = f"fetch it where there is a network with `{command}`, or use --model {FALLBACK}"
    if not hub_answers():
        raise ModelError(f"the weights of {name} are not here and the hub does not answer; {mend}")
    try:
        return Path(fetch())
    except Exception as error:  # the libraries raise what their networks raise
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"cannot fetch {name}: {reason}; {mend}") from error


def cached_weights(architecture: str, tag: str) -> Path | None:
    """The weights of ARCH/PRETRAINED in the libraries' caches, or None. No network is touched."""
    settings = open_clip_files.pretrained(architecture, tag)
    if settings.get("hf_hub"):
        repository, _, filename = settings["hf_hub"].rpartition("/")
        names = (filename,) if filename else _HUB_WEIGHTS
        safe = tuple(Path(name).with_suffix(".safetensors").name for name in names)
        if cached := cached_file(repository, (*safe, *names)):
            return cached
    # open_clip keeps what it fetches by URL here; OpenAI's own files are TorchScript, which is code
    url = str(settings.get("url", ""))
    path = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
    if url and "openaipublic" not in url and path.is_file():
        return path
    return None


def cached_file(repository: str, filenames: Sequence[str]) -> Path | None:
    """The first of some files of a hub's repository that is in the local cache; None where none is. Raises ModelError
    for what can be no name of a repository."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for filename in filenames:
        try:
            place = try_to_load_from_cache(repository, filename)
        except HFValidationError:
            raise ModelError(f"'{repository}' names no hub repository; write ORG/NAME") from None
        if isinstance(place, str):
            return Path(place)
    return None


def fetch_command(architecture: str, tag: str) -> str:
    """The shell command that puts the weights of ARCH/PRETRAINED where ovtool finds them."""
    settings = open_clip_files.pretrained(architecture, tag)
    if settings.get("hf_hub"):
        repository, _, filename = settings["hf_hub"].rpartition("/")
        return f"hf download {repository} {filename}".strip()
    return f"python -c \"import open_clip; open_clip.create_model('{architecture}', '{tag}')\""


def hub_answers() -> bool:
    """Whether the hub answers at all within 3 seconds, name look-up included; False with
    `HF_HUB_OFFLINE`.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []
    # getaddrinfo knows no timeout, so the question is asked in a thread that may be left behind
    probe = threading.Thread(target=lambda: answers.append(_head(constants.ENDPOINT)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return bool(answers and answers[0])


def _head(url: str) -> bool:
    """One HEAD request; any answer below 500 that is no proxy's refusal says that someone is there."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, method="HEAD"), timeout=PROBE_SECONDS):
            return True
    except HTTPError as error:
        return error.code < 500 and error.code not in (403, 407)
    except (OSError, HTTPException, ValueError):
        return False
