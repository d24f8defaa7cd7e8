"""Colours as CIE Lab, to the bit as scikit-image makes them, whose module of colours takes long to import.

sRGB by the curve of IEC 61966-2-1 to linear light, by its matrix to XYZ, and over the white of daylight D65 (seen at 2
degrees) to L from 0 to 100, and a and b.
"""

import numpy as np
from numpy.typing import NDArray

_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def of_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An image, uint8 (H, W, 3), in Lab: float32 (H, W, 3)."""
    shares = np.arange(256) * (1 / 255)
    linear = np.where(shares > 0.04045, ((shares + 0.055) / 1.055) ** 2.4, shares / 12.92)
    xyz = linear[rgb] @ _XYZ.T / _WHITE
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)
