"""A CLIP's network from its configuration and its weights file, and the digest of its tensors.

What is plain enough is a network of `network` or `photo`, anything else open_clip's, which takes seconds to import. Where a file holds exactly the tensors of the network, they are put in place without first drawing
random ones (most of the time that loading a small model takes); otherwise open_clip's
`load_checkpoint` converts them.
"""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovtool.formats import cache, tensors
from ovtool.models import hub, photo
from ovtool.models import network as plain
from ovtool.models.tower_types import ClipNetwork, Network


def network(config: Mapping[str, Any], weights: Path) -> ClipNetwork:
    """The CLIP of this configuration with these weights: float32, on the CPU, in eval mode, without
    gradients.

    Pickles are read with ``weights_only=True`` alone. Raises ModelError, in one line, where the
    file is broken, is not plain tensors, or does not fit the configuration.
    """
    try:
        _check_text_tower(config["text_cfg"])
        model = _placed(config, weights) or _converted(config, weights)
    except Exception as error:  # safetensors, pickle, torch and timm each raise their own
        raise hub.cannot_load(f"the model in {weights}", error) from error
    return model.eval().requires_grad_(False)


def _check_text_tower(text: Mapping[str, Any]) -> None:
    """Raise ValueError where transformers would need code of the repository for a text tower.

    open_clip asks transformers without saying whether such code is trusted, so that it would ask on
    stdin; a folder of the working directory can have the name of a repository.
    """
    if name := text.get("hf_model_name"):
        from transformers import AutoConfig

        AutoConfig.from_pretrained(name, trust_remote_code=False)


def _class_of(config: Mapping[str, Any]) -> tuple[Callable[..., ClipNetwork], dict[str, Any]]:
    """open_clip's class for a configuration and its arguments, as `open_clip.create_model` chooses
    them.
    """
    import open_clip

    arguments = copy.deepcopy(dict(config))
    custom = arguments.pop("custom_text", False) or "hf_model_name" in arguments["text_cfg"]
    if "hf_model_name" in arguments["text_cfg"]:
        arguments["text_cfg"]["hf_model_pretrained"] = False
    if "timm_model_name" in arguments["vision_cfg"]:
        arguments["vision_cfg"]["timm_model_pretrained"] = False
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP), arguments


def _at_random(config: Mapping[str, Any]) -> ClipNetwork:
    """The network of a configuration: ours where its shape is plain, open_clip's otherwise."""
    if photo.is_photo(config):
        return _as_clip(photo.from_config(config))
    if plain.is_plain(config):
        return _as_clip(plain.from_config(config))
    model_class, arguments = _class_of(config)
    return model_class(**arguments)


def _as_clip(model: nn.Module) -> ClipNetwork:
    clip: Any = model  # torch gives `Tensor | Module` for every attribute
    network: ClipNetwork = clip
    return network


def _placed(config: Mapping[str, Any], weights: Path) -> ClipNetwork | None:
    """The network with the file's tensors put in place, or None where something has to be
    converted.
    """
    if weights.suffix != ".safetensors" or "hf_model_name" in config["text_cfg"]:
        return None
    from safetensors.torch import load_file

    state = load_file(weights)
    with torch.device("meta"):
        model = _at_random(config)
    wanted = model.state_dict()
    if {k: v.shape for k, v in wanted.items()} != {k: v.shape for k, v in state.items()}:
        return None
    model.load_state_dict({k: v.to(wanted[k].dtype) for k, v in state.items()}, assign=True)
    parts: tuple[Any, ...] = (model, getattr(model, "text", None))
    for part in parts:
        mask = getattr(part, "attn_mask", None)
        if part is not None and mask is not None:  # the one buffer that no file holds
            part.attn_mask = plain.causal_mask(mask.shape[0])
    tensors_left = (*model.parameters(), *model.buffers())
    return None if any(tensor.is_meta for tensor in tensors_left) else model


def _converted(config: Mapping[str, Any], weights: Path) -> ClipNetwork:
    if photo.is_photo(config):
        raise ValueError("its tensors are not those of its configuration")
    from open_clip.factory import load_checkpoint

    model_class, arguments = _class_of(config)
    with torch.device("meta"):
        numbers = sum(value.numel() for value in model_class(**arguments).state_dict().values())
    if numbers > weights.stat().st_size:  # before memory is taken for them
        raise ValueError(f"its configuration describes {numbers:,} numbers, and the file has fewer")
    model = model_class(**_class_of(config)[1])
    load_checkpoint(model, str(weights), strict=True, weights_only=True)
    return model


def fingerprint(model: Network, weights: Path | None = None) -> str:
    """The digest of the network's float32 tensors: 16 hexadecimal digits, the same for any file
    format.

    With the file that the tensors came from, the digest is kept in the cache for as long as the
    file has the same place, size and time: hashing a ViT-L takes seconds.
    """
    if weights is None:
        return _digest(model)
    place, status = weights.resolve(), weights.stat()
    key = [str(place), status.st_size, status.st_mtime_ns]
    kept = cache.entry("fingerprints", key, ".txt")
    digest = (cache.read_text(kept) or "").strip()
    if len(digest) != 16 or not set(digest) <= set("0123456789abcdef"):
        digest = _digest(model)
        cache.write_bytes(kept, digest.encode())
    return digest


def _digest(model: Network) -> str:
    state: dict[str, Tensor] = model.state_dict()
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return tensors.fingerprint({k: v.cpu().contiguous() for k, v in floats.items()})
