"""Decoded images, kept in memory as long as there is room."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 1 << 30

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class KeptImages:
    """Images by key; those that were kept first give way."""

    _kept: "OrderedDict[Hashable, Rgb]" = field(default_factory=OrderedDict)

    def of(self, key: Hashable, read: Callable[[], Rgb]) -> Rgb:
        """The image of a key, which is read where it is not kept."""
        rgb = self._kept.get(key)
        if rgb is None:
            rgb = self._kept[key] = read()
            while sum(kept.nbytes for kept in self._kept.values()) > CACHE_BYTES:
                self._kept.popitem(last=False)
        return rgb
