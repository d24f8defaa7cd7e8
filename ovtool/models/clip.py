"""CLIP: a model loaded by its name, and images and patches embedded with it. All of ovtool loads CLIPs here.

>>> clip = load("tiny", torch.device("cpu"))
>>> features = patch_features(clip, normalise(clip, rgb))

Text is embedded by `ovtool.models.text`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ovtool.errors import InputError, ModelError, UsageError
from ovtool.formats import tensors
from ovtool.methods.pixels import Triple, standardised
from ovtool.models import build, hub, recommendations, resolve, sources, tokenizer, towers
from ovtool.models.photo import is_photo
from ovtool.models.recommendations import Recommendations
from ovtool.models.tower_types import ClipNetwork, is_hybrid, is_native
from ovtool.models.word_table import WordTable

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's


@dataclass(frozen=True)
class Recommended:
    """What the file of a model's weights says beside them.

    Attributes:
        words: the words that a small model learned, None for a model without such a list.
        rows: the row of each of them in the network's table of words, empty for one without.
        stuff: those of them that stand behind things.
        dense: how its patches are read best: `last_block`, `short_side`, `window`, `stride`, or nothing.
        settings: settings that were measured to be best with it (`models.recommendations`).
    """

    words: Sequence[str] | None = None
    rows: Sequence[int] = ()
    stuff: Sequence[str] = ()
    dense: Mapping[str, Any] = field(default_factory=dict)
    settings: Recommendations = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP that is ready to use: eval mode, no gradients, on one device in one dtype.

    `mean` and `std` normalise RGB in 0..1; `image_size` is the side of the square that it was
    trained on and `patch_size` a patch's, in pixels; `patch_stride` is the step between the patches
    that are read (see `with_patch_stride`); `embed_dim` is the width of the space that
    images and texts share; `logit_scale` multiplies cosines (the exponential of the trained
    parameter); `pooling` is ``token``, ``attention`` or ``average``; `words` are what a small model
    learned, None for one without such a list, and `stuff` those of them that stand behind things;
    `dense` says how its weights recommend to read its patches: `last_block`, `short_side`,
    `window`, `stride`, or nothing; `table` is where it has words by heart, None for other models; `recommended` holds the settings that were measured to be best with
    it (`models.recommendations`). `tokenizer(texts, context_length)` gives (N, context_length) int64.
    """

    name: str
    fingerprint: str
    model: ClipNetwork
    tokenizer: Callable[..., Tensor]
    mean: Triple
    std: Triple
    image_size: int
    patch_size: int
    patch_stride: int
    embed_dim: int
    logit_scale: float
    pooling: str
    words: frozenset[str] | None
    stuff: tuple[str, ...]
    dense: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    recommended: Recommendations = field(default_factory=dict)
    table: WordTable | None = None

    @property
    def default_last_block(self) -> str:
        """The last block that `patch_features` uses when none is named: the one that the weights
        recommend, else ``naclip``, or ``clip`` on timm's towers.
        """
        if "last_block" in self.dense:
            return str(self.dense["last_block"])
        return "naclip" if is_native(self.model.visual) else "clip"


def load(
    name: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    artefact: str | None = None,
) -> Clip:
    """Load a CLIP by its name.

    Args:
        name: the name, None for the model of the artefact or the default (see `resolve.choose`).
        device: where it computes.
        dtype: in which precision it computes.
        artefact: the model that an input names.

    Raises:
        ModelError: in one line with the mend, for a name that means nothing, weights that are not at
            hand or cannot be read, and networks without patches.
    """
    spec = resolve.meant(name, artefact)
    if spec.kind == "bundled":
        files = sources.bundled(spec.name)
    elif spec.kind == "pretrained":
        files = sources.pretrained(spec.architecture, spec.pretrained)
    elif spec.kind == "hub":
        files = sources.hub(spec.repository)
    else:
        assert spec.path is not None
        files = sources.local(spec.path)
    recommended = _recommended(files.weights)  # first: it refuses files of other kinds
    model = build.network(files.config, files.weights)
    fingerprint = build.fingerprint(model, files.weights)
    if spec.kind in ("bundled", "local"):  # a copy has what was measured on the model
        measured = recommendations.of_content(fingerprint)
        recommended = replace(recommended, settings={**recommended.settings, **measured})
    return from_model(
        model,
        spec.name,
        tokenizer=_tokenizer(files, spec.name),
        mean=files.preprocess.get("mean"),
        std=files.preprocess.get("std"),
        recommended=recommended,
        fingerprint=fingerprint,
        device=device,
        dtype=dtype,
    )


def from_model(
    model: ClipNetwork,
    name: str,
    *,
    tokenizer: Callable[..., Tensor] = tokenizer.tokenize,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    recommended: Recommended = Recommended(),
    fingerprint: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Clip:
    """A `Clip` around an open_clip network; it is moved to `device` and `dtype` and loses its
    gradients.

    Raises ModelError where its image tower has no patches to read.
    """
    patch_size, pooling = towers.prepare(model.visual, name)
    digest = fingerprint or build.fingerprint(model)
    logit_scale = float(model.logit_scale.detach().float().exp())
    with torch.no_grad():
        embed_dim = _embed_dim(model)
    return Clip(
        name=name,
        fingerprint=digest,
        model=model.eval().requires_grad_(False).to(device=device, dtype=dtype),
        tokenizer=tokenizer,
        mean=_triple(mean or MEAN),
        std=_triple(std or STD),
        image_size=model.visual.image_size[0],
        patch_size=patch_size,
        patch_stride=patch_size,
        embed_dim=embed_dim,
        logit_scale=logit_scale,
        pooling=pooling,
        words=None if recommended.words is None else frozenset(recommended.words),
        stuff=tuple(recommended.stuff),
        dense=recommended.dense,
        device=torch.device(device),
        dtype=dtype,
        recommended=recommended.settings,
        table=_table(recommended),
    )


def _table(recommended: Recommended) -> WordTable | None:
    """The words by heart, where there are some, with what is said of their meaning."""
    if not recommended.rows:
        return None
    meanings = recommended.settings.get("table", {})
    same, kinds = meanings.get("same", {}), meanings.get("kinds", {})
    return WordTable.of(recommended.words or (), recommended.rows, same, kinds)


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _embed_dim(model: ClipNetwork) -> int:
    text: Any = getattr(model, "text", model)
    projection = text.text_projection
    if isinstance(projection, nn.Linear):
        return projection.out_features
    if projection is not None:
        return int(projection.shape[1])
    assert is_native(model.visual)  # timm's towers are loaded with text towers that project
    return model.visual.output_dim


def _tokenizer(files: sources.Files, name: str) -> Callable[..., Tensor]:
    """The tokenizer of a model: open_clip's own, unless its configuration names another.

    A tokenizer that needs code of its own is an error: such code is never run, and no one is asked.
    """
    text = files.config["text_cfg"]
    options = text.get("tokenizer_kwargs") or {}
    context_length = text.get("context_length") or tokenizer.CONTEXT_LENGTH
    if is_photo(files.config):
        return tokenizer.SubWords(files.weights.with_suffix(".tokenizer.json"))
    if not files.tokenizer and not options:
        return tokenizer.tokenize
    try:
        import open_clip

        if not files.tokenizer:
            own: Callable[..., Tensor] = open_clip.SimpleTokenizer(
                context_length=context_length, **options
            )
            return own
        try:
            return _of_hub(
                files, context_length, local=True
            )  # a hub that is away is asked for a minute
        except Exception:
            if Path(files.tokenizer).is_dir() or not sources.hub_answers():
                raise
            return _of_hub(files, context_length, local=False)
    except ImportError as error:
        mend = "install it with `pip install transformers sentencepiece`"
        raise ModelError(f"the tokenizer of {name} needs transformers; {mend}") from error
    except Exception as error:  # transformers and the hub raise their own
        place = files.tokenizer
        if not place or "custom code" in str(error):
            raise hub.cannot_load(f"the tokenizer of {name}", error) from error
        mend = f"fetch it where there is a network with `hf download {place}`"
        if Path(place).is_dir():
            mend = "put the files that save_pretrained of a tokenizer writes there"
        raise ModelError(
            f"the tokenizer of {name} is not in {place}, or is broken there; {mend}"
        ) from error


def _of_hub(files: sources.Files, context_length: int, local: bool) -> Callable[..., Tensor]:
    """The tokenizer that a configuration names, of a folder or the hub; local: from the cache alone."""
    import open_clip

    text = files.config["text_cfg"]
    own: Callable[..., Tensor] = open_clip.tokenizer.HFTokenizer(
        files.tokenizer,
        context_length=context_length,
        tokenizer_mode=text.get("tokenizer_mode"),
        trust_remote_code=False,
        local_files_only=local,
        **(text.get("tokenizer_kwargs") or {}),
    )
    return own


def _recommended(weights: Path) -> Recommended:
    """What the header of a weights file says, where it is one of ovtool's own.

    Raises ModelError for a file of ovtool's that holds something else.
    """
    if weights.suffix != ".safetensors":
        return Recommended()
    try:
        header = tensors.read_header(weights)
    except InputError:  # other people's safetensors have no header of ours
        return Recommended()
    if header["kind"] != "clip":
        raise ModelError(
            f"{weights} is of kind {header['kind']}, not clip; name the weights of a CLIP"
        )
    tensors.check_settings(header, weights)
    settings = header["settings"]
    return Recommended(
        settings.get("words"),
        settings.get("rows", ()),
        settings.get("stuff", ()),
        settings.get("dense") or {},
        settings.get("recommended") or {},
    )


def normalise(clip: Clip, rgb: Tensor) -> Tensor:
    """Images as the tower takes them: uint8 RGB (B, H, W, 3) to (B, 3, H, W) in the model's
    dtype, on its device.
    """
    pixels = rgb.to(clip.device).permute(0, 3, 1, 2).float().div_(255.0)
    return standardised(pixels, clip.mean, clip.std).to(clip.dtype)


@torch.no_grad()
def encode_images(clip: Clip, pixels: Tensor) -> Tensor:
    """Embed whole images: normalised (B, 3, H, W), sides multiples of the patch, to (B, D)
    float32 of length 1.
    """
    towers.grid_size(pixels, clip.patch_size)
    features = towers.image_features(clip.model.visual, _placed(clip, pixels))
    return normalize(features.float(), dim=-1)


@torch.no_grad()
def patch_features(clip: Clip, pixels: Tensor, last_block: str | None = None) -> Tensor:
    """Embed patches in the space of texts: normalised (B, 3, H, W) to (B, h, w, D) float32 of
    length 1.

    H and W are any multiples of the patch size. `last_block` is one of `dense_clip.LAST_BLOCKS`,
    None the tower's default. Raises UsageError for a last block that is unknown or that the tower
    cannot have.
    """
    shape = grid(clip, pixels)
    name = last_block or clip.default_last_block
    features = towers.patch_features(
        clip.model.visual, _placed(clip, pixels), shape, name, clip.patch_stride
    )
    on_grid: Tensor = normalize(features.float(), dim=-1).unflatten(1, shape)
    return on_grid


def grid(clip: Clip, pixels: Tensor) -> tuple[int, int]:
    """The patches that are read of images (B, 3, H, W), (h, w). Raises ValueError unless H and W are
    multiples of the patch size."""
    return towers.grid_size(pixels, clip.patch_size, clip.patch_stride)


def with_patch_stride(clip: Clip, stride: int) -> Clip:
    """The same model, its patches read every `stride` pixels: they overlap, and the position
    embeddings are resampled to the finer grid. Whole images are embedded as before.

    Raises UsageError for a step that does not divide the patch, and for timm's towers.
    """
    if stride < 1 or clip.patch_size % stride:
        whole = [n for n in range(1, clip.patch_size + 1) if clip.patch_size % n == 0]
        raise UsageError(
            f"--patch-stride {stride} does not divide the patches of {clip.name}, of "
            f"{clip.patch_size} pixels; give {', '.join(map(str, whole[:-1]))} or {whole[-1]}"
        )
    if stride != clip.patch_size and not is_native(clip.model.visual):
        raise UsageError(
            f"--patch-stride needs a tower of open_clip's own, and that of {clip.name} is timm's; "
            "leave it out, or use a model such as ViT-B-16/openai"
        )
    if stride != clip.patch_size and is_hybrid(clip.model.visual):
        raise UsageError(
            f"--patch-stride {stride} is finer than what {clip.name} sees, whose convolutional stem has one "
            f"step of {clip.patch_size} pixels; leave it out, or enlarge images with --short-side"
        )
    return replace(clip, patch_stride=stride)


@torch.no_grad()
def layer_tokens(clip: Clip, pixels: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """The tower's own patch tokens before its projection, in the model's dtype: (B, h, w, width) for each block.

    They are the outputs of `blocks` (0 the first, -1 the last) after the tower's last norm, in one pass and
    in the order in which they are named.
    """
    placed = _placed(clip, pixels)
    layers = towers.layer_tokens(clip.model.visual, placed, blocks, clip.patch_stride)
    return [tokens.unflatten(1, grid(clip, pixels)) for tokens in layers]


def require_class_token(clip: Clip, what: str) -> None:
    """Raise UsageError, saying that `what` needs one, unless images are pooled by a class token."""
    if clip.pooling != "token":
        raise UsageError(
            f"{what} needs a model that pools by a class token, and {clip.name} pools by "
            f"{clip.pooling}; use one such as ViT-B-16/openai"
        )


def _placed(clip: Clip, pixels: Tensor) -> Tensor:
    return pixels.to(device=clip.device, dtype=clip.dtype)
