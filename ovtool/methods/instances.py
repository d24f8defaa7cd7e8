"""The mask of a class, divided into instances: by what touches, or by proposals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

INSIDE = 0.5  # the share of a proposal that must lie in a mask, and be left by better ones, to be an instance
_TOUCHING = np.ones((3, 3), np.int8)  # corners too


def parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The parts of a mask, bool (H, W), whose pixels touch by a side or a corner, the topmost first."""
    labels, count = ndimage.label(mask, _TOUCHING)
    return [labels == number for number in range(1, count + 1)]


def by_proposals(
    mask: NDArray[np.bool_], proposals: Sequence[NDArray[np.bool_]]
) -> list[NDArray[np.bool_]]:
    """A mask divided by proposals, so that its instances share no pixel and are the mask together.

    A proposal is an instance where more than half of it lies in the mask and is not taken by a better one. A pixel
    that no instance has goes to the nearest instance of its part; a part without one is an instance.

    Args:
        mask: bool (H, W).
        proposals: bool (H, W), the best first.
    """
    owner = np.zeros(mask.shape, np.int32)
    count = 0
    for proposal in proposals:
        free = proposal & mask & (owner == 0)
        if free.any() and free.sum() > INSIDE * proposal.sum():
            count += 1
            owner[free] = count
    touching, _ = ndimage.label(mask, _TOUCHING)
    for part, place in enumerate(ndimage.find_objects(touching), start=1):
        own, inside = owner[place], touching[place] == part
        taken = inside & (own > 0)
        if not taken.any():
            count += 1
            own[inside] = count
        elif not taken[inside].all():
            near = ndimage.distance_transform_edt(
                ~taken, return_distances=False, return_indices=True
            )
            own[inside] = own[tuple(near)][inside]
    numbers = [int(value) for value in np.unique(owner) if value]
    return [owner == value for value in numbers]
