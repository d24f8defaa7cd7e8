"""The published ways: what `--recipe NAME` sets in each class of settings, and where each value was read.

A recipe counts more than a default and more than what the model recommends, since it was asked for; an
option that is given counts more than the recipe. What a paper leaves to other networks or to pixel truth is in
no recipe: the backbone of a mask generator, the proposer, the words that compete as background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIELD = "recipe"  # of a class of settings: the name of a published way


@dataclass(frozen=True)
class Published:
    """A value, and the section of the paper or the file of the published code that has it."""

    value: Any
    source: str


Values = Mapping[str, Published]
_SCLIP = "code of SCLIP, its protocol for data without background"
_PLAIN: Values = {  # of patches that are shown once, and whose scores are taken as they are
    "scales": Published((1.0,), "the paper has one size"),
    "image_prior": Published(0.0, "the paper has none"),
    "crf": Published("none", "the paper's own figures have none"),
}


def _dense(last_block: str, source: str, side: int, window: int, scale: float) -> Values:
    """How a CLIP without training reads patches: 80 sentences, and windows whose step is
    half of them, as it is by default."""
    return {
        "last_block": Published(last_block, source),
        "templates": Published("openai", source),
        "short_side": Published(side, source),
        "window": Published(window, source),
        "logit_scale": Published(scale, source),
        "pacl": Published("none", source),
        **_PLAIN,
    }


# recipe -> class of settings -> field -> value
RECIPES: Mapping[str, Mapping[str, Values]] = {
    "ovseg": {
        "TwoStage": {
            "templates": Published("vild", "OVSeg A.2"),
            "ensemble": Published(0.7, "OVSeg A.3, of ADE20K; 0.6 of the other data"),
            "region_features": Published("crops", "OVSeg 3.1"),
            "background_tokens": Published("keep", "OVSeg 3.3"),
            "max_proposals": Published(100, "OVSeg 4.3.1; code: no other filter of masks"),
            "logit_scale": Published(100.0, "code: get_sim_logits of clip_adapter"),
        },
        "Nouns": {
            "captions_per_image": Published("1", "OVSeg 3.2, table 2"),
            "chunks": Published(False, "OVSeg 3.2: nouns"),
            "no_stop": Published(True, "OVSeg 3.2 names no word that is left out"),
        },
        "Matching": {
            "templates": Published("one", "not in the paper; no code was published"),
            "matching": Published("cosine", "OVSeg 3.2: the closest masked proposal"),
            "region_features": Published("crops", "OVSeg 3.2: the closest masked proposal"),
            "quality_weight": Published(0.0, "OVSeg 3.2 has no prior"),
        },
        "MaskPrompts": {
            "train": Published("tower-then-prompts", "OVSeg table 3, c"),
            "epochs": Published(5.0, "OVSeg A.4"),
            "batch_size": Published(256, "OVSeg A.4, of ViT-L/14; 1024 of ViT-B/16"),
            "lr": Published(2e-2, "OVSeg A.4"),
            "tower_lr": Published(5e-6, "OVSeg A.4"),
            "warmup": Published(100, "code: open_clip_training/src/scripts"),
            "depth": Published(3, "OVSeg table 6"),
            "loss": Published("paper", "code: InfoNCE over all pairs of a batch"),
        },
    },
    "pacl": {
        "Pacl": {
            "epochs": Published(10.0, "PACL A.2.1"),
            "batch_size": Published(4096, "PACL A.2.1"),
            "lr": Published(5e-4, "PACL A.2.1"),
            "weight_decay": Published(0.2, "PACL A.2.1"),
            "warmup": Published(0, "PACL A.2.1 names none"),
            "patch_scale": Published(1.0, "PACL eq. 2 and 3 show no temperature"),
            "pooling": Published("softmax", "PACL eq. 2"),
            "pairs": Published("all", "PACL eq. 3: of an image and any text"),
            "nouns": Published(True, "PACL A.2.2: nouns beside captions"),
            "noun_weight": Published(1.0, "PACL A.2.2"),
            "naming": Published(0.0, "PACL has no such loss"),
            "templates": Published("pacl", "PACL A.2.2: seven sentences"),
            "start": Published("random", "PACL A.1 names no other start"),
            "last_block": Published("clip", "PACL A.1: the tokens of the encoder"),
            "window": Published(0, "PACL 4"),
        },
        "Patch": {
            "templates": Published("pacl", "PACL A.2.2: seven sentences"),
            "window": Published(0, "PACL 4"),
            "patch_stride": Published(4, "PACL 4: a stride of 4 when it is tested"),
            **_PLAIN,
        },
    },
    "semples": {
        "LabelMatching": {
            "epochs": Published(60.0, "code, stage a of VOC"),
            "batch_size": Published(64, "code, stage a of VOC"),
            "lr": Published(6.4e-5, "code, stage a of VOC: 5.12e-4 x 64 / 512"),
            "weight_decay": Published(0.03, "code, stage a"),
            "warmup": Published(0, "code, stage a"),
            "background_weight": Published(2.4, "code, stage a of VOC; 0.75 of COCO"),
            "similarity": Published("raw", "code: clip_loss.py"),
            "crop_scale": Published(0.08, "code: timm's random crops"),
            "short_side": Published(224, "code: crops of 224"),
            "scales": Published((1.0, 1.2), "code, maps of VOC"),
            "flip": Published(True, "code, maps of VOC"),
        },
        "BackgroundPrompts": {
            "epochs": Published(60.0, "code, stage b"),
            "batch_size": Published(128, "code, stage b"),
            "lr": Published(0.025, "code, stage b of VOC: 0.1 x 128 / 512"),
            "weight_decay": Published(0.03, "code, stage b"),
            "warmup": Published(0, "code, stage b"),
            "push": Published("text", "code, stage b"),
            "push_weight": Published(0.02, "code, stage b of VOC; 0.01 of COCO"),
            "init": Published("uniform", "code, stage b"),
            "similarity": Published("raw", "code: clip_loss.py"),
            "crop_scale": Published(0.08, "code, stage b: timm's random crops"),
        },
        "Apply": {
            "apply": Published(("prompts", "crf"), "code, stage c; SemPLeS 3.3"),
            "crf": Published("weaktr", "code of WeakTr, maps of VOC"),
        },
        "PromptStep": {
            "epochs": Published(60.0, "code, stage c of VOC"),
            "batch_size": Published(64, "code, stage c of VOC"),
            "lr": Published(6.4e-5, "code, stage c of VOC: 5.12e-4 x 64 / 512"),
            "weight_decay": Published(0.03, "code, stage c"),
            "warmup": Published(0, "code, stage c"),
            "background_weight": Published(2.4, "code, stage c of VOC; 0.75 of COCO"),
            "refine_weight": Published(0.05, "code, stage c of VOC; 0.2 of COCO"),
            "similarity": Published("raw", "code: clip_loss.py"),
        },
    },
    "naclip": {"Patch": _dense("naclip", "code of NACLIP", 336, 224, 40.0)},
    "sclip": {"Patch": _dense("sclip", _SCLIP, 336, 224, 40.0)},
    "clearclip": {"Patch": _dense("clearclip", "code of ClearCLIP", 448, 448, 50.0)},
    # as later papers run MaskCLIP again; the sizes of its own code are others
    "maskclip": {"Patch": _dense("maskclip", _SCLIP, 336, 224, 40.0)},
}

# the command of each class
COMMANDS = {
    "Patch": "segment",
    "TwoStage": "segment",
    "Nouns": "mine-pairs",
    "Matching": "mine-pairs",
    "MaskPrompts": "tune-prompts",
    "BackgroundPrompts": "tune-prompts",
    "Pacl": "train-pacl",
    "LabelMatching": "cam",
    "Apply": "refine",
    "PromptStep": "refine",
}


def values(recipe: str | None, settings: type) -> dict[str, Any]:
    """What a recipe sets in a class of settings, field to value; nothing without a recipe."""
    own = RECIPES.get(recipe or "", {}).get(settings.__name__, {})
    return {name: published.value for name, published in own.items()}


def commands(recipe: str | None) -> list[str]:
    """The commands that have a recipe of this name, in their order; none for an unknown name."""
    return list(dict.fromkeys(COMMANDS[name] for name in RECIPES.get(recipe or "", {})))
