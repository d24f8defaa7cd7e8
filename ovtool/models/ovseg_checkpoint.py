"""The weights that OVSeg's authors published, as files of ovtool: a CLIP, its mask prompts, a proposer.

A checkpoint holds the names of MaskFormer's original code (backbone, `sem_seg_head`), which are those that transformers'
own conversion of MaskFormer knows, a CLIP under the names of OpenAI (`...visual.conv1.weight`), with
`visual.mask_embedding` (depth, patches, width) in its image tower, and the vector of "no object",
`...non_object_embedding` (1, C). What is in the file decides what is made: there may be a CLIP alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ovtool.datasets import vocabularies
from ovtool.errors import InputError
from ovtool.formats import atomic, tensors
from ovtool.methods.mask_prompts import MaskPrompts
from ovtool.models import build, hub, maskformer, region_clip, text
from ovtool.models import clip as clips

if TYPE_CHECKING:
    from transformers import MaskFormerConfig

LICENCE = "CC BY-NC 4.0"
State = Mapping[str, Tensor]
MODEL, PROPOSER, PROMPTS = "model.safetensors", "proposer.safetensors", "prompts.safetensors"
_VISUAL = "visual.conv1.weight"
_PROMPTS = "visual.mask_embedding"
_NO_OBJECT = "non_object_embedding"
_LARGE = 768  # the width of the space of ViT-L/14, whose proposer sees images at 640 pixels
_LEFT_OUT = ("input_resolution", "context_length", "vocab_size", "attn_mask")

_BODY = "model.pixel_level_module."
_SWIN = f"{_BODY}encoder.model."
_HEAD = r"sem_seg_head\.predictor\."
_DECODER = rf"{_HEAD}transformer\.decoder\."
_OURS = "model.transformer_module."
# names of the original code, as patterns of their beginnings, and ours
_RENAMED = (
    (r"backbone\.patch_embed\.proj\.", f"{_SWIN}embeddings.patch_embeddings.projection."),
    (r"backbone\.patch_embed\.norm\.", f"{_SWIN}embeddings.norm."),
    (r"backbone\.norm(\d)\.", rf"{_BODY}encoder.hidden_states_norms.\1."),
    (r"backbone\.layers\.", f"{_SWIN}encoder.layers."),
    (r"sem_seg_head\.pixel_decoder\.mask_features\.", f"{_BODY}decoder.mask_projection."),
    (rf"{_HEAD}query_embed\.", f"{_OURS}queries_embedder."),
    (rf"{_HEAD}input_proj\.", f"{_OURS}input_projection."),
    (rf"{_DECODER}norm\.", f"{_OURS}decoder.layernorm."),
    (_DECODER, f"{_OURS}decoder."),
    (rf"{_HEAD}mask_embed\.layers\.(\d+)\.", r"mask_embedder.\1.0."),
    (rf"{_HEAD}class_embed\.layers\.(\d+)\.", r"proposal_embedder.\1.0."),
)
# then, anywhere in a name of Swin or of the decoder
_PARTS = (
    (".norm1.", ".layernorm_before.", ".self_attn_layer_norm."),
    (".norm2.", ".layernorm_after.", ".encoder_attn_layer_norm."),
    (".norm3.", "", ".final_layer_norm."),
    (".attn.proj.", ".attention.output.dense.", ""),
    (".attn.", ".attention.self.", ""),
    (".mlp.fc1.", ".intermediate.dense.", ""),
    (".mlp.fc2.", ".output.dense.", ""),
    (".linear1.", "", ".mlp.fc1."),
    (".linear2.", "", ".mlp.fc2."),
    (".multihead_attn.", "", ".encoder_attn."),
    (".out_proj.", "", ".o_proj."),
)
_PYRAMID = re.compile(r"sem_seg_head\.pixel_decoder\.(layer|adapter)_(\d)\.(norm\.)?(\w+)")


@dataclass(frozen=True)
class Made:
    """What a checkpoint gave.

    Attributes:
        files: The names of the files in the folder, kind to name.
        notes: What it lacks, a sentence for each.
    """

    files: Mapping[str, str]
    notes: tuple[str, ...]


def convert(path: Path, folder: Path, settings: Mapping[str, Any]) -> Made:
    """Writes the parts of a checkpoint into a folder.

    settings: What the headers of the files say of the conversion.

    Raises InputError for a file that is no such checkpoint, or holds more than tensors.
    """
    state = read(path)
    prefix = clip_prefix(state)
    if prefix is None:
        raise InputError(
            f"{path} holds no CLIP (no tensor ends in {_VISUAL}); give a checkpoint of OVSeg"
        )
    settings = {**settings, "licence": LICENCE}
    own = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    prompts = own.pop(_PROMPTS, None)
    own = {k: v.float() for k, v in own.items() if k not in _LEFT_OUT and k != _NO_OBJECT}
    config = clip_config(own, str(path))
    atomic.write_text(
        folder / MODEL.replace(".safetensors", ".json"),
        atomic.canonical_json({"model_cfg": config}),
    )
    tensors.save(folder / MODEL, own, {"kind": "clip", "settings": settings})
    clip = clips.from_model(build.network(config, folder / MODEL), MODEL)
    files, notes = {"model": MODEL}, []
    if prompts is None:
        notes.append("it has no mask prompts")
    else:
        side = clip.image_size // clip.patch_size
        values = prompts.float()
        if values.ndim != 3 or values.shape[1] not in (1, side * side):
            raise InputError(
                f"{path}: its mask prompts have the shape {list(values.shape)}, which fits no grid"
            )
        values = values.expand(-1, side * side, -1).contiguous()
        region_clip.save_prompts(
            folder / PROMPTS, clip, MaskPrompts(values, (side, side)), None, settings
        )
        files["prompts"] = PROMPTS
    if not any(name.startswith("sem_seg_head.") for name in state):
        notes.append("it has no proposer")
    elif not any(name.startswith("backbone.patch_embed.") for name in state):
        notes.append("its proposer is not written, for its backbone is no Swin transformer")
    else:
        _write_proposer(state, path, folder, clip, settings)
        files["proposer"] = PROPOSER
    return Made(files, tuple(notes))


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of detectron2 or open_clip; nothing is unpickled. Raises InputError."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # zip, pickle and torch each have their own
        raise InputError(f"cannot read {path}: {hub.reason(error)}") from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no tensors by name; give a checkpoint of OVSeg")
    plain = {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
    broken = next(
        (k for k, v in plain.items() if v.is_floating_point() and not v.isfinite().all()), None
    )
    if broken is not None:
        raise InputError(
            f"{path}: the tensor {broken} holds NaN or infinite numbers; fetch it again"
        )
    return plain


def clip_prefix(state: State) -> str | None:
    """What stands before the names of the CLIP, that with mask prompts where there are two; None without one."""
    for ending in (_PROMPTS, _VISUAL):
        names = [name for name in state if name == ending or name.endswith(f".{ending}")]
        if names:
            return min(names, key=len).removesuffix(ending)
    return None


def clip_config(state: State, where: str) -> dict[str, Any]:
    """open_clip's configuration of a CLIP by the shapes of its tensors. Raises InputError where some are
    missing."""
    try:
        width, _, patch, _ = state[_VISUAL].shape
        places = state["visual.positional_embedding"].shape[0] - 1
        text_width = state["ln_final.weight"].shape[0]
        return {
            "embed_dim": state["text_projection"].shape[1],
            "quick_gelu": True,  # as all of OpenAI's
            "vision_cfg": {
                "image_size": isqrt(places) * patch,
                "layers": _count(state, r"visual\.transformer\.resblocks\.(\d+)\."),
                "width": width,
                "head_width": 64,
                "patch_size": patch,
            },
            "text_cfg": {
                "context_length": state["positional_embedding"].shape[0],
                "vocab_size": state["token_embedding.weight"].shape[0],
                "width": text_width,
                "heads": text_width // 64,
                "layers": _count(state, r"transformer\.resblocks\.(\d+)\."),
            },
        }
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{where}: its CLIP lacks {error}; give a whole checkpoint of OVSeg"
        ) from None


def proposer_config(state: State, embed_dim: int) -> MaskFormerConfig:
    """transformers' configuration of the proposer by the shapes of its tensors: a Swin transformer, a feature
    pyramid and a decoder without an encoder. Raises KeyError for what is missing."""
    from transformers import MaskFormerConfig, MaskFormerSwinConfig
    from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

    stages = _count(state, r"backbone\.layers\.(\d+)\.")
    blocks = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    tables = [state[blocks.format(stage)].shape for stage in range(stages)]
    swin: Any = MaskFormerSwinConfig
    backbone = swin(
        image_size=384,
        embed_dim=state["backbone.patch_embed.proj.weight"].shape[0],
        patch_size=state["backbone.patch_embed.proj.weight"].shape[2],
        depths=[_count(state, rf"backbone\.layers\.{k}\.blocks\.(\d+)\.") for k in range(stages)],
        num_heads=[heads for _, heads in tables],
        window_size=(isqrt(tables[0][0]) + 1) // 2,
        drop_path_rate=0.3,
        out_features=[f"stage{stage + 1}" for stage in range(stages)],
    )
    head = "sem_seg_head.predictor."
    layer = f"{head}transformer.decoder.layers.0."
    queries, width = state[f"{head}query_embed.weight"].shape
    decoder = MaskFormerDetrConfig(
        encoder_layers=0,
        num_queries=queries,
        d_model=width,
        decoder_layers=_count(state, rf"{_DECODER}layers\.(\d+)\."),
        decoder_attention_heads=8,
        decoder_ffn_dim=state[f"{layer}linear1.weight"].shape[0],
    )
    mask_features = state["sem_seg_head.pixel_decoder.mask_features.weight"].shape
    return MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=mask_features[1],
        mask_feature_size=mask_features[0],
    )


def proposer_state(state: State) -> dict[str, Tensor]:
    """The tensors of the proposer under our names: those that are stored as one (queries, keys, values) apart."""
    made: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(_NO_OBJECT):
            made["no_object"] = value.reshape(-1)
        if not (new := _renamed(name)):
            continue
        if ".attention.self.qkv." in new:
            for part, own in zip(("query", "key", "value"), value.chunk(3), strict=True):
                made[new.replace(".qkv.", f".{part}.")] = own
        elif ".in_proj_" in new:
            for part, own in zip(("q", "k", "v"), value.chunk(3), strict=True):
                made[new.replace(".in_proj_", f".{part}_proj.")] = own
        else:
            made[new] = value
    last = max((name for name in made if ".hidden_states_norms." in name), default="")
    norm = last.rpartition(".")[0]
    for what in ("weight", "bias"):  # transformers' Swin has it once more, for a pooled output
        if f"{norm}.{what}" in made:
            made[f"{_SWIN}layernorm.{what}"] = made[f"{norm}.{what}"]
    return made


def _renamed(name: str) -> str | None:
    """Our name of a tensor of the proposer; None for one of something else."""
    pyramid = _PYRAMID.fullmatch(name)
    if pyramid is not None:
        kind, level, norm, what = pyramid.groups()
        place = f"layers.{3 - int(level)}.{'block' if kind == 'layer' else 'proj'}"
        return f"{_BODY}decoder.fpn.{'stem' if level == '4' else place}.{1 if norm else 0}.{what}"
    for old, new in _RENAMED:
        ours, count = re.subn(f"^{old}", new, name)
        if not count:
            continue
        for part, of_swin, of_decoder in _PARTS:
            other = of_swin if ours.startswith(f"{_SWIN}encoder.") else of_decoder
            if other and ours.startswith((f"{_SWIN}encoder.", f"{_OURS}decoder.layers.")):
                ours = ours.replace(part, other)
        return ours
    return None


def _write_proposer(
    state: State, path: Path, folder: Path, clip: clips.Clip, settings: Mapping[str, Any]
) -> None:
    hub.quiet()
    try:
        config = proposer_config(state, clip.embed_dim)
        with torch.device("meta"):
            wanted = maskformer.MaskFormer(config, clip.embed_dim).state_dict()
        own = {name: value for name, value in proposer_state(state).items() if name in wanted}
        lacking = [
            name for name in wanted if name not in own and not name.endswith("_position_index")
        ]
        lacking += [f"{k} of its shape" for k, v in own.items() if v.shape != wanted[k].shape]
        if lacking:
            raise KeyError(lacking[0])
        with torch.random.fork_rng(devices=[]):
            network = maskformer.MaskFormer(config, clip.embed_dim)
        network.load_state_dict({k: v.to(wanted[k].dtype) for k, v in own.items()}, strict=False)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: its proposer lacks {error}; give a whole checkpoint of OVSeg"
        ) from None
    names = vocabularies.named("coco171").names
    words = text.embed_words(clip, names, "vild").float()
    more = {"names": list(names), "short_side": 640 if clip.embed_dim == _LARGE else 512}
    maskformer.save(folder / PROPOSER, network, words, clip, {**settings, **more})


def _count(state: State, pattern: str) -> int:
    """How many numbered parts there are."""
    matches = (re.match(pattern, name) for name in state)
    numbers = {int(match[1]) for match in matches if match}
    if not numbers:
        raise KeyError(pattern.replace("\\", ""))
    return max(numbers) + 1
