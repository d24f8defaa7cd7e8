"""The mask that a noun of a caption means: the closest masked crop in a CLIP's space (OVSeg, section 3.2)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovtool.methods import noun_matching
from ovtool.models import region_clip, text
from ovtool.models.clip import Clip
from ovtool.models.nouns import Noun
from ovtool.runtime.device import Halving
from ovtool.settings.layers import known
from ovtool.settings.pairs import Matching


@dataclass(frozen=True, eq=False)
class NounMasks:
    """A CLIP with the nouns of a run, ready for one image after another.

    Attributes:
        clip: the model.
        matching: how a noun takes its mask, with nothing left to the model.
        text: float32 (N, D), the embeddings of the nouns as `spoken`.
        rows: the row of each of them in `text`.
    """

    clip: Clip
    matching: Matching
    text: Tensor
    rows: Mapping[str, int]

    def best(
        self,
        nouns: Sequence[Noun],
        rgb: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        quality: Tensor,
        encode: Halving[Any, Tensor],
    ) -> tuple[list[int], list[float]]:
        """The mask of each noun; several nouns may have the same.

        Args:
            nouns: those of the image.
            rgb: the image, uint8 (H, W, 3).
            masks: bool (N, H, W), none of them empty.
            quality: float32 (N,), of the masks.
            encode: what `region_clip.encoder` gave.

        Returns:
            For each noun the number of its mask, and the cosine of the two; of crops and tokens the mean of both.
        """
        regions = self._regions(rgb, masks, encode)
        rows = torch.tensor([self.rows[spoken(self.clip, noun)] for noun in nouns])
        text = self.text[rows.to(self.text.device)]
        cosines = noun_matching.similarities(regions, text).cpu()  # (nouns, masks)
        best = noun_matching.best_proposals(self._scores(cosines, quality))
        similarity = cosines.gather(1, best[:, None])[:, 0]
        return best.tolist(), similarity.tolist()

    def _regions(
        self, rgb: NDArray[np.uint8], masks: NDArray[np.bool_], encode: Halving[Any, Tensor]
    ) -> Tensor:
        """What the CLIP sees of each mask, float32 (N, D): its crop, its token, or the mean of both."""
        ways, features = [], self.matching.region_features
        if features != "crops":
            ways.append(region_clip.encode_region_tokens(self.clip, rgb, masks))
        if features != "tokens":
            size = self.matching.crop_size
            ways.append(
                region_clip.encode_regions(self.clip, rgb, masks, encode=encode, crop_size=size)
            )
        return torch.stack(ways).mean(0)

    def _scores(self, cosines: Tensor, quality: Tensor) -> Tensor:
        """The scores that the best mask of each noun is chosen by, (nouns, masks)."""
        scores = self.clip.logit_scale * cosines
        if self.matching.matching == "softmax" and len(cosines) > 1:
            scores = noun_matching.log_softmax_over_nouns(scores)
        return noun_matching.with_prior(scores, quality, known(self.matching.quality_weight))


def of(clip: Clip, nouns: Iterable[Noun], matching: Matching) -> NounMasks:
    """Embeds all nouns of a run, with settings that are filled; those that the model never learned are named in one warning."""
    if matching.region_features != "crops":
        region_clip.require_region_tokens(clip)
    words = sorted({spoken(clip, noun) for noun in nouns})
    text.warn_unlearned(clip, words)
    embedded = text.embed_words(clip, words, known(matching.templates))
    return NounMasks(clip, matching, embedded, {word: row for row, word in enumerate(words)})


def named(clip: Clip, noun: Noun) -> Noun:
    """The noun with the name of its category as its lemma: the word as the caption says it, where that is the
    only form among the words that a small model learned."""
    surface, learned = noun.surface.lower(), clip.words or ()
    is_surface = surface in learned and noun.lemma not in learned
    return replace(noun, lemma=surface) if is_surface else noun


def spoken(clip: Clip, noun: Noun) -> str:
    """The word of a noun that the CLIP embeds.

    It is the noun as the caption says it, in lower case, since glasses are no glass; the lemma where that
    is the only form among the words that a small model learned.
    """
    surface, learned = noun.surface.lower(), clip.words or ()
    return noun.lemma if noun.lemma in learned and surface not in learned else surface
