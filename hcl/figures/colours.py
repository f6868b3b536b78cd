"""Colours of ids: those of VOC's masks for classes, colours as different as possible for clusters."""

import numpy as np
from matplotlib.colors import hsv_to_rgb

from hcl.data.voc import palette

GOLDEN_TURN = (5**0.5 - 1) / 2
"""Steps of this share of the colour circle make the colours of successive ids very different."""


def class_colours(labels: np.ndarray) -> np.ndarray:
    """Map class ids (...) uint8 to the colours (..., 3) of VOC's masks, in [0, 1]."""
    return np.array(palette()).reshape(256, 3)[labels] / 255


def cluster_colours(ids: np.ndarray) -> np.ndarray:
    """Map cluster ids (...) to colours (..., 3) in [0, 1], the same for the same id in every image."""
    hues = ids * GOLDEN_TURN % 1
    saturations = 0.5 + 0.4 * (ids % 2)
    return hsv_to_rgb(np.stack([hues, saturations, 0.7 + 0.3 * (ids // 2 % 2)], axis=-1))


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Convert colours or brightness (...) in [0, 1] to uint8."""
    return (255 * values).round().clip(0, 255).astype(np.uint8)


def as_hex(colour: np.ndarray) -> str:
    """Return a colour (3,) uint8 in the notation of HTML, ``#rrggbb``."""
    return f"#{bytes(colour).hex()}"
