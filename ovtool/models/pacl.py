"""PACL heads: patch tokens of a CLIP's image tower to patches that are aligned with its texts.

A head is a file of kind `pacl` that belongs to one CLIP. It is learned by `ovtool train-pacl`.

>>> head = choose(None, clip)  # the bundled one, where the CLIP has one
>>> patches = patch_features(clip, head, pixels)  # (B, h, w, D), of length 1
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ovtool.errors import UsageError
from ovtool.formats import tensors
from ovtool.methods.patch_alignment import Pooling, VisionEmbedder
from ovtool.models import artefacts, sources, towers
from ovtool.models import clip as clips
from ovtool.models.clip import Clip
from ovtool.models.tower_types import is_native

KIND = "pacl"
NONE = "none"
TOWER = "clip"  # the last block whose tokens are the tower's own


@dataclass(frozen=True, eq=False)
class Head:
    """A trained embedder with what was trained beside it.

    pooling: the patch weights of the training. logit_scale: multiplies compatibilities. settings: what
    shaped the training; `last_block` there says which tokens the head reads. fingerprint: of its
    tensors.
    """

    embedder: VisionEmbedder
    pooling: Pooling
    logit_scale: float
    settings: Mapping[str, Any]

    @property
    def last_block(self) -> str:
        """The last block whose tokens the head reads, one of `dense_clip.LAST_BLOCKS`, or several joined
        by `+`, whose tokens it reads side by side."""
        return str(self.settings.get("last_block", TOWER))

    @property
    def fingerprint(self) -> str:
        """16 digits that tell heads apart."""
        return tensors.fingerprint(
            {name: value.float() for name, value in self.embedder.state_dict().items()}
        )


def widths(clip: Clip, last_block: str = TOWER) -> tuple[int, int]:
    """How wide the patch tokens of `tokens` are, and the CLIP's texts."""
    with torch.no_grad():
        side = clip.patch_size
        pixels = torch.zeros(1, 3, side, side, device=clip.device, dtype=clip.dtype)
        patches = tokens(clip, pixels, last_block)
    return int(patches.shape[-1]), clip.embed_dim


def projection(clip: Clip, last_block: str = TOWER) -> Tensor | None:
    """The tower's own projection of tokens (width, D), None where it has none. Of several last blocks
    joined by `+` the first is projected, and the others count for nothing.

    Raises UsageError where it is no plain matrix, as on timm's towers with a pooling of their own."""
    visual = clip.model.visual
    width, out = widths(clip)
    more = last_block.count("+")
    if is_native(visual):
        if not more:
            return visual.proj
        first = torch.eye(width) if visual.proj is None else visual.proj.detach()
        return torch.cat([first, torch.zeros_like(first).repeat(more, 1)])
    if width == out and not more:
        return None
    raise UsageError(f"{clip.name} projects patches by no single matrix; give --start random")


@torch.no_grad()
def tokens(clip: Clip, pixels: Tensor, last_block: str = TOWER) -> Tensor:
    """What a head reads: the patch tokens after the tower's last norm, before its projection, in the
    model's dtype. Normalised (B, 3, H, W), sides multiples of the patch, to (B, h, w, width).

    last_block: `clip` is the tower as it is; the others are those of `dense_clip.LAST_BLOCKS`, and
    several joined by `+` give their tokens side by side. Raises UsageError for one that is unknown or
    that the tower cannot have.
    """
    grid = clips.grid(clip, pixels)
    placed = pixels.to(device=clip.device, dtype=clip.dtype)
    visual, stride = clip.model.visual, clip.patch_stride
    patches: Tensor = towers.block_tokens(visual, placed, grid, last_block, stride).unflatten(
        1, grid
    )
    return patches


@torch.no_grad()
def patch_embeddings(head: Head, patches: Tensor) -> Tensor:
    """Tokens (B, h, w, width) to the space of texts: (B, h, w, D) float32 of length 1."""
    return normalize(head.embedder(patches.float()), dim=-1)


def patch_features(clip: Clip, head: Head, pixels: Tensor) -> Tensor:
    """`clip.patch_features` with a head in place of the tower's projection: (B, h, w, D) float32 of
    length 1."""
    return patch_embeddings(head, tokens(clip, pixels, head.last_block))


def save(path: Path, clip: Clip, head: Head, half: bool = False) -> None:
    """Writes a head for its CLIP, with `half` in float16. Raises InputError."""
    content = {name: value.float() for name, value in head.embedder.state_dict().items()}
    if half:
        content = {name: value.half() for name, value in content.items()}
    own = {"scale": head.pooling.scale, "kind": head.pooling.kind}
    settings = {**head.settings, "pooling": own, "logit_scale": head.logit_scale}
    artefacts.save(path, KIND, clip, content, settings)


def load(path: Path, clip: Clip) -> Head:
    """The head of a file, on the CLIP's device, in float32, without gradients.

    Raises InputError for a file that is broken, MismatchError for another kind or another CLIP.
    """
    header, content = artefacts.load(path, KIND, clip, "train the head again")
    settings = header["settings"]
    with artefacts.reading(path, "PACL head", "train it again"):
        out, width = content["skip.weight"].shape
        embedder = VisionEmbedder(width, out)
        embedder.load_state_dict({name: value.float() for name, value in content.items()})
        pooling = Pooling(**settings["pooling"])
        logit_scale = float(settings["logit_scale"])
    embedder.eval().requires_grad_(False).to(clip.device)
    kept = {
        name: value for name, value in settings.items() if name not in ("pooling", "logit_scale")
    }
    return Head(embedder, pooling, logit_scale, kept)


def bundled(clip: Clip) -> Path | None:
    """The head that comes with ovtool for this very CLIP, or None."""
    path = sources.bundled_folder() / "tiny_pacl.safetensors"
    if not path.is_file() or tensors.read_header(path).get("fingerprint") != clip.fingerprint:
        return None
    return path


def choose(given: str | None, clip: Clip) -> Head | None:
    """The head that `--pacl` means: None is the bundled one of the CLIP, if it has one, `none` is no
    head, anything else a file. Raises as `load`."""
    if given == NONE:
        return None
    path = bundled(clip) if given is None else Path(given)
    return None if path is None else load(path, clip)
