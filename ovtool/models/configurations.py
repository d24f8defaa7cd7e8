"""What the configuration that comes with weights may say.

open_clip hands the keys of a configuration on to its towers, to timm and to transformers. Some of them name another
repository, and some become arguments of a loader, `trust_remote_code` among them, so that a configuration could
run code. One that comes with weights was written by whoever made them: only the keys below are handed on, and what
names a network or a tokenizer must be the model's own or one of open_clip's. `stem`, `hidden`, `context` and `table` are ours
(`photo`).
"""

import functools
import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from ovtool.errors import ModelError
from ovtool.runtime import open_clip_files

Kinds = tuple[type, ...]
MAX_LAYERS, MAX_SIZE = 1_000, 1 << 24
_FLAG, _WHOLE, _NUMBER, _TEXT, _TABLE = (bool,), (int,), (int, float), (str,), (dict,)

_MODEL: Mapping[str, Kinds] = {
    "embed_dim": _WHOLE, "vision_cfg": _TABLE, "text_cfg": _TABLE, "custom_text": _FLAG, "quick_gelu": _FLAG,
    "init_logit_scale": _NUMBER, "init_logit_bias": _NUMBER, "nonscalar_logit_scale": _FLAG,
}  # fmt: skip
_TOWERS: Mapping[str, Kinds] = {
    "width": _WHOLE, "layers": _WHOLE, "mlp_ratio": _NUMBER, "ls_init_value": _NUMBER, "pool_type": _TEXT,
    "final_ln_after_pool": _FLAG, "output_tokens": _FLAG, "act_kwargs": _TABLE, "norm_kwargs": _TABLE,
    "block_type": _TEXT, "qk_norm": _FLAG, "scaled_cosine_attn": _FLAG, "scale_heads": _FLAG,
    "scale_attn_inner": _FLAG, "scale_attn": _FLAG, "scale_fc": _FLAG,
}  # fmt: skip
_NESTED: Mapping[str, Mapping[str, Kinds]] = {
    "": _MODEL,
    "vision_cfg": {
        **_TOWERS, "head_width": _WHOLE, "patch_size": _WHOLE, "image_size": (int, list), "patch_dropout": _NUMBER,
        "attentional_pool": _FLAG, "attn_pooler_queries": _WHOLE, "attn_pooler_heads": _WHOLE,
        "no_ln_pre": _FLAG, "pos_embed_type": _TEXT, "timm_model_name": _TEXT, "timm_model_pretrained": _FLAG,
        "timm_pool": _TEXT, "timm_proj": _TEXT, "timm_proj_bias": _FLAG, "timm_drop": _NUMBER,
        "timm_drop_path": _NUMBER, "stem": _TABLE, "hidden": _WHOLE, "context": (list,),
    },
    "text_cfg": {
        **_TOWERS, "context_length": _WHOLE, "vocab_size": _WHOLE, "heads": _WHOLE, "embed_cls": _FLAG,
        "pad_id": _WHOLE, "eos_id": _WHOLE, "no_causal_mask": _FLAG, "proj_bias": _FLAG, "proj_type": _TEXT,
        "hf_tokenizer_name": _TEXT, "tokenizer_mode": _TEXT, "tokenizer_kwargs": _TABLE, "hf_model_name": _TEXT,
        "hf_model_pretrained": _FLAG, "hf_proj_type": _TEXT, "hf_pooler_type": _TEXT, "table": _WHOLE,
    },
    "stem": {"widths": (list,), "depths": (list,), "first": _WHOLE, "last": _WHOLE},
    "tokenizer_kwargs": {"clean": _TEXT, "strip_sep_token": _FLAG, "language": _TEXT},
    "act_kwargs": {"approximate": _TEXT},
    "norm_kwargs": {"eps": _NUMBER},
}  # fmt: skip
_TIMM_NAME = re.compile(r"vit_\w+(\.\w+)?", re.ASCII)
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "vocab.txt", "vocab.json",
)  # fmt: skip


def check(config: Mapping[str, Any], where: str) -> None:
    """Check that a configuration that came with weights can only describe a network.

    Args:
        config: open_clip's ``model_cfg``, with ``vision_cfg`` and ``text_cfg``.
        where: the file, for messages.

    Raises:
        ModelError: a key that is not handed on, a value of another type, or a text tower that is not
            one of open_clip's own configurations.
    """
    _check_keys(config, "", where)
    trunk = config["vision_cfg"].get("timm_model_name")
    if trunk and not _TIMM_NAME.fullmatch(trunk):
        raise ModelError(f"{where}: timm_model_name '{trunk}' is not the name of a timm network")
    text_tower = config["text_cfg"].get("hf_model_name")
    if text_tower and text_tower not in _own("hf_model_name"):
        raise ModelError(
            f"{where}: hf_model_name '{text_tower}' names a network of another repository, which is not loaded; "
            "name a model whose text tower is open_clip's own"
        )


def _check_keys(table: Mapping[str, Any], name: str, where: str) -> None:
    """Check the keys of one table and of those inside it; `name` is the key that holds it."""
    for key, value in table.items():
        place = f"{name}.{key}" if name else key
        kinds = _NESTED[name].get(key)
        if kinds is None:
            raise ModelError(
                f"{where}: '{place}' is not a key that a model's own configuration may set; remove it if you "
                "trust the rest of the model"
            )
        if value is not None and type(value) not in kinds:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ModelError(f"{where}: '{place}' is {value!r:.60}, not {wanted}; correct it")
        if float not in kinds:
            _check_size(value, place, where)
        if type(value) is dict:
            _check_keys(value, key, where)


def _check_size(value: Any, place: str, where: str) -> None:
    """Check that integers, and those of a list, are sizes that a network can have."""
    most = MAX_LAYERS if place.endswith(("layers", "depths")) else MAX_SIZE
    for number in value if isinstance(value, list) else [value]:
        if isinstance(value, list) and type(number) is not int:
            raise ModelError(
                f"{where}: '{place}' is {value!r:.60}, not a list of integers; correct it"
            )
        if type(number) is int and not -1 <= number <= most:
            raise ModelError(
                f"{where}: '{place}' is {number!r:.60}, not -1 to {most:,}; correct it"
            )


def preprocessing(settings: Any, where: str) -> dict[str, list[float]]:
    """``mean`` and ``std`` of ``preprocess_cfg``, those that it has; nothing else of it is used.

    Raises:
        ModelError: one of them is not three finite numbers, or a deviation is not above 0.
    """
    if not isinstance(settings, dict):
        raise ModelError(f"{where}: preprocess_cfg is {settings!r:.60}, not an object; correct it")
    kept: dict[str, list[float]] = {}
    for key in ("mean", "std"):
        values = settings.get(key)
        if values is None:
            continue
        whole = isinstance(values, list) and len(values) == 3
        if not whole or not all(type(value) in _NUMBER and isfinite(value) for value in values):
            raise ModelError(f"{where}: {key} is {values!r:.60}, not three numbers; correct it")
        if key == "std" and min(values) <= 0:
            raise ModelError(f"{where}: std is {values!r:.60}; it must be above 0")
        kept[key] = values
    return kept


def tokenizer_of(config: Mapping[str, Any], own: Path | str, where: str) -> str:
    """Where transformers finds the tokenizer of a model: a folder or a name of the hub.

    It is empty for open_clip's own tokenizer, which needs no files.

    Args:
        config: open_clip's ``model_cfg``.
        own: the folder of the model, or its repository on the hub.
        where: the configuration's file, for messages.

    Raises:
        ModelError: the configuration names a tokenizer that is neither the model's own nor one of
            open_clip's configurations.
    """
    name = str(config["text_cfg"].get("hf_tokenizer_name") or "")
    if not name:
        return ""
    if isinstance(own, Path) and any((own / file).is_file() for file in _TOKENIZER_FILES):
        return str(own)
    if name == str(own) or name in _own("hf_tokenizer_name"):
        return name
    mend = (
        f"put the tokenizer's files into {own}" if isinstance(own, Path) else "name another model"
    )
    raise ModelError(
        f"{where}: hf_tokenizer_name '{name}' names a tokenizer of another repository, which is not loaded; {mend}"
    )


@functools.cache
def _own(key: str) -> frozenset[str]:
    """What open_clip's own configurations say for a key of ``text_cfg``."""
    configs = map(open_clip_files.configuration, open_clip_files.architectures())
    return frozenset(filter(None, (config.get("text_cfg", {}).get(key) for config in configs)))
