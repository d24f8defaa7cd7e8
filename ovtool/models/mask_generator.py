"""The mask generator: an image to one map a class, by a small trained head on a backbone.

The backbone is the CLIP's own image tower, frozen (`clip`: no other weights are needed), or any of timm's
networks (`timm:NAME`), frozen or fine-tuned. The head is a 3 x 3 convolution into `hidden` channels, ReLU,
and a 1 x 1 convolution into the classes; with `hidden` 0 it is one 3 x 3 convolution, WeakTr's.

The published generator does not begin at random weights, and a CLIP can do without a training for that: its
maps are at first the CLIP's own reading of its patches (MaskCLIP, Zhou et al., ECCV 2022),

    raw_c = ReLU(SHARPNESS (x . t_c - mean_b x . t_b) + head_c(x))        start `text`
    raw_c = ReLU(SHARPNESS (x . t_c - max_b  x . t_b) + head_c(x))        start `rivals`

with x a patch's embedding, t_c the class's text, t_b those of background words, and a head whose last layer
begins at 0.

>>> generator = Generator(Settings(), categories, clip)
>>> raw = generator.maps(generator.features(generator.normalise(rgb)))
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ovtool.errors import MismatchError, UsageError
from ovtool.formats import coco, labelled
from ovtool.methods import windows
from ovtool.models import artefacts, dense_scores, timm_backbone
from ovtool.models import clip as clips
from ovtool.models.clip import Clip

KIND = "mask-generator"
HIDDEN = 256
STARTS = ("rivals", "text", "random")
WINDOWS_AT_ONCE = 16
KEPT_BYTES = 1 << 30  # of what this process has read of images in windows, which takes long
_KEPT: dict[str, Tensor] = {}
SHARPNESS = 10.0  # brings differences of cosines, of a few tenths, to the range of the head


class Texts(NamedTuple):
    """Where maps begin: the texts of the classes (C, D) and of background words (N, D), N from 0 on."""

    classes: Tensor
    background: Tensor


@dataclass(frozen=True)
class Settings:
    """What a generator is built of.

    backbone: `clip`, or `timm:NAME`. fine_tuned: whether timm's is trained too. hidden: channels of the
    head's hidden layer, 0 for none. side: the shorter side, in pixels, of an image that it sees. start: one
    of `STARTS`; all but `random` are for the CLIP's own patches.

    Raises UsageError for an unknown backbone or start, for a start that timm's backbone has no words for, and
    for the CLIP's own tower fine-tuned.
    """

    backbone: str = "clip"
    fine_tuned: bool = False
    hidden: int = HIDDEN
    side: int | None = None
    start: str = "random"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UsageError(f"unknown --begin '{self.start}'; choose from {', '.join(STARTS)}")
        if self.backbone != "clip":
            timm_backbone.name_of(self.backbone)
            if self.start != "random":
                raise UsageError(
                    f"--begin {self.start} reads the CLIP's own patches, and {self.backbone} has others; give "
                    "--begin random"
                )
        elif self.fine_tuned:
            raise UsageError(
                "the CLIP's own tower stays frozen; fine-tune a backbone of timm, such as "
                "--generator timm:resnet18"
            )


class Generator(nn.Module):
    """A generator for `categories`, one channel each, in their order.

    clip: whose patches it reads, and in whose normalised pixels it works; with timm's backbone it is only
    what the masks were matched with. texts: where it begins, None for the start `random`. What is frozen is
    not in the parameters that `trained` gives, and not in the state but for a backbone of timm's and texts.
    """

    classes: Tensor | None
    background: Tensor | None

    def __init__(
        self,
        settings: Settings,
        categories: Sequence[coco.Category],
        clip: Clip,
        seed: int = 0,
        *,
        texts: Texts | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.settings, self.categories = settings, tuple(categories)
        self.clip = clip
        if (texts is None) != (settings.start == "random"):
            raise ValueError("every start but random has texts")
        self.register_buffer("classes", None if texts is None else texts.classes)
        self.register_buffer("background", None if texts is None else texts.background)
        self.backbone: timm_backbone.Backbone | None = None
        if settings.backbone == "clip":
            width = clip.embed_dim
        else:
            name = timm_backbone.name_of(settings.backbone)
            self.backbone = timm_backbone.Backbone(name, self.side, seed, pretrained=pretrained)
            self.backbone.requires_grad_(settings.fine_tuned)
            width = self.backbone.width
        self.head = _head(width, settings.hidden, len(self.categories))
        self.to(clip.device)
        self.restart(seed)

    @property
    def side(self) -> int:
        """The shorter side of an image that it sees, in pixels."""
        own = self.clip.dense.get("short_side") if self.backbone is None else None
        return self.settings.side or int(own or 2 * self.clip.image_size)

    @property
    def divisor(self) -> int:
        """What the sides of an image must be multiples of."""
        return self.clip.patch_size if self.backbone is None else self.backbone.divisor

    @property
    def is_frozen(self) -> bool:
        """Whether `features` never change, so that they can be kept."""
        return not self.settings.fine_tuned

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are learned."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def restart(self, seed: int) -> None:
        """Puts the head where it was before any training; drawn from `seed` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.head.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()
        if self.classes is not None:  # nothing is added to them yet
            for parameter in _last(self.head).parameters():
                nn.init.zeros_(parameter)

    def normalise(self, rgb: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3) as `features` takes them: (B, 3, H, W), on the device."""
        if self.backbone is None:
            return clips.normalise(self.clip, rgb)
        return timm_backbone.normalise(rgb.to(self.clip.device))

    def features(self, pixels: Tensor) -> Tensor:
        """What the head reads: normalised (B, 3, H, W), sides multiples of `divisor`, to (B, D, h, w),
        float32; without a gradient where the backbone is frozen.

        For the CLIP: each patch's embedding by the last block that its weights recommend, of length 1 and
        scaled to unit variance; where they recommend windows, the mean of the windows' embeddings, on a grid
        of half a patch.
        """
        if self.backbone is None:
            scale: float = self.clip.embed_dim**0.5
            return self._patches(pixels) * scale
        if self.settings.fine_tuned:
            features: Tensor = self.backbone(pixels)
            return features.float()
        self.backbone.eval()
        with torch.no_grad():
            features = self.backbone(pixels)
        return features.float()

    def _patches(self, pixels: Tensor) -> Tensor:
        """The embeddings of patches, (B, D, h, w)."""
        clip = self.clip
        window, stride = (int(clip.dense.get(name, 0)) for name in ("window", "stride"))
        if not window or max(pixels.shape[2:]) <= window:
            return clips.patch_features(clip, pixels).permute(0, 3, 1, 2)
        return torch.stack(
            [self._of_windows(image, window, stride or window // 2) for image in pixels]
        )

    def _of_windows(self, pixels: Tensor, window: int, stride: int) -> Tensor:
        """The mean of the windows' embeddings of one image (3, H, W), (D, h, w). Images are read one by
        one, so that what is kept of an image is the same to the bit as what is read anew."""
        clip = self.clip
        digest = hashlib.sha256(pixels.float().cpu().numpy().tobytes()).hexdigest()
        key = f"{clip.fingerprint} {clip.device} {torch.get_num_threads()} {digest}"
        if key in _KEPT:
            return _KEPT[key].to(pixels.device)
        height, width = (2 * side // clip.patch_size for side in pixels.shape[1:])
        (seen,) = windows.score_windows(
            pixels[None], window, stride,
            lambda crops: clips.patch_features(clip, crops).permute(0, 3, 1, 2), WINDOWS_AT_ONCE,
        )  # fmt: skip
        maps = dense_scores.rows(seen, (height, width))(0, height)
        if sum(kept.nbytes for kept in _KEPT.values()) + maps.nbytes <= KEPT_BYTES:
            _KEPT[key] = maps.cpu()
        return maps

    def logits(self, features: Tensor) -> Tensor:
        """Maps (B, C, h, w) before their ReLU, of features (B, D, h, w)."""
        logits: Tensor = self.head(features)
        if self.classes is None or self.background is None:
            return logits
        sharpness: float = SHARPNESS / self.clip.embed_dim**0.5  # of features of unit variance
        fits = torch.einsum("bdhw,cd->bchw", features, self.classes)
        if len(self.background):
            others = torch.einsum("bdhw,nd->bnhw", features, self.background)
            is_best = self.settings.start == "rivals"
            fits = fits - (others.amax(1, True) if is_best else others.mean(1, True))
        return logits + sharpness * fits

    def maps(self, features: Tensor) -> Tensor:
        """Raw maps (B, C, h, w) from 0 on, of features (B, D, h, w); `activation_maps.min_max` brings
        them to [0, 1]."""
        return self.logits(features).relu()

    def forward(self, pixels: Tensor) -> Tensor:
        """`maps` of `features`."""
        return self.maps(self.features(pixels))

    def view(self, rgb: Tensor, scale: float = 1.0) -> Tensor:
        """An image uint8 (H, W, 3) as it is seen in use: its shorter side `scale` times `side`, both sides
        multiples of `divisor`; normalised (1, 3, h, w)."""
        return self.normalise(timm_backbone.resized(rgb, round(scale * self.side), self.divisor))


def _head(width: int, hidden: int, classes: int) -> nn.Module:
    if not hidden:
        return nn.Conv2d(width, classes, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(width, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, classes, 1)
    )


def _last(head: nn.Module) -> nn.Module:
    """The layer of a head that gives the classes."""
    return head[-1] if isinstance(head, nn.Sequential) else head


def save(path: Path, generator: Generator, settings: Mapping[str, Any]) -> None:
    """Writes a generator, with `settings` of its training beside its own. Raises InputError."""
    clip = generator.clip
    state = {name: value.float() for name, value in generator.state_dict().items()}
    own = {
        "generator": asdict(generator.settings) | {"side": generator.side},
        "categories": [coco.category_entry(category) for category in generator.categories],
    }
    artefacts.save(path, KIND, clip, state, {**settings, **own})


def require_categories(
    generator: Generator, categories: Sequence[coco.Category], source: str
) -> None:
    """Checks that a generator makes maps of the classes of labels or maps, by name, in their order.

    Args:
        generator: Its map of index k is of its k-th class, so that the order counts; ids do not.
        categories: Those of the labels or maps.
        source: What they come from, for the message.

    Raises:
        MismatchError: The classes are others, or stand in another order.
    """
    own = [category.name for category in generator.categories]
    given = [category.name for category in categories]
    if own == given:
        return
    differing = sorted(set(own) ^ set(given))
    how = f"they differ in {labelled.shortened(differing)}" if differing else "their order differs"
    raise MismatchError(
        f"the generator has {len(own)} classes and {source} has {len(given)}; {how}; give the "
        "generator that `ovtool cam` saved for these classes"
    )


def load(path: Path, clip: Clip) -> Generator:
    """A generator from its file, in eval mode.

    Raises InputError for a file that is broken, MismatchError for one of another kind or of another CLIP.
    """
    header, content = artefacts.load(path, KIND, clip, "train the generator again")
    with artefacts.reading(path, "mask generator", "train it again"):
        settings = Settings(**header["settings"]["generator"])
        categories = coco.parse_categories(header["settings"], str(path))
        is_random = settings.start == "random"
        texts = None if is_random else Texts(content["classes"], content["background"])
        generator = Generator(settings, categories, clip, texts=texts, pretrained=False)
        wanted = generator.state_dict()
        content = {name: value.to(wanted[name].dtype) for name, value in content.items()}
        generator.load_state_dict(content)
    return generator.eval()
