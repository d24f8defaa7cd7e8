"""Prompt templates: the sentences that a class name is put into before it is encoded as text.

Sources: `pacl`, the seven templates of PACL (Mukhoti et al., CVPR 2023, appendix A.2.2); `vild`,
the fourteen of ViLD (Gu et al., ICLR 2022) as OVSeg uses them (Liang et al., CVPR 2023, appendix
A.2); `openai`, CLIP's eighty ImageNet templates, which open_clip carries.
"""

from ovtool.errors import UsageError
from ovtool.runtime import open_clip_files

TEMPLATES: dict[str, tuple[str, ...]] = {
    "one": ("a photo of a {}.",),
    "pacl": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "{} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "vild": (
        "a photo of a {}.",
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
        "a photo of a small {}.",
        "a photo of a medium {}.",
        "a photo of a large {}.",
        "This is a photo of a small {}.",
        "This is a photo of a medium {}.",
        "This is a photo of a large {}.",
        "There is a small {} in the scene.",
        "There is a medium {} in the scene.",
        "There is a large {} in the scene.",
    ),
}
TEMPLATE_SETS: tuple[str, ...] = (*TEMPLATES, "openai")


def templates(name: str) -> tuple[str, ...]:
    """The sentences of one template set, each with one ``{}`` for the class name.

    `name` is one of `TEMPLATE_SETS`; raises UsageError for any other.
    """
    if name == "openai":
        known = open_clip_files.module("zero_shot_metadata")
        return tuple(template("{}") for template in known.OPENAI_IMAGENET_TEMPLATES)
    if name not in TEMPLATES:
        choices = ", ".join(TEMPLATE_SETS)
        raise UsageError(f"unknown template set '{name}'; choose one of {choices}")
    return TEMPLATES[name]
