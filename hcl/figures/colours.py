"""Colours of ids: classes as VOC's masks have them, clusters as far apart as can be."""

import numpy as np
from matplotlib.colors import hsv_to_rgb

from hcl.data.voc import palette

GOLDEN_TURN = (5**0.5 - 1) / 2
"""Steps of this share of the colour circle keep the colours of successive ids apart."""


def class_colours(labels: np.ndarray) -> np.ndarray:
    """Class ids (...) uint8 to the colours (..., 3) of VOC's masks, in [0, 1]."""
    return np.array(palette()).reshape(256, 3)[labels] / 255


def cluster_colours(ids: np.ndarray) -> np.ndarray:
    """Cluster ids (...) to colours (..., 3) in [0, 1], the same for the same id in every image."""
    hues = ids * GOLDEN_TURN % 1
    saturations = 0.5 + 0.4 * (ids % 2)
    return hsv_to_rgb(np.stack([hues, saturations, 0.7 + 0.3 * (ids // 2 % 2)], axis=-1))


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Colours or light (...) in [0, 1] as uint8."""
    return (255 * values).round().clip(0, 255).astype(np.uint8)


def as_hex(colour: np.ndarray) -> str:
    """A colour (3,) uint8 as a page writes it, ``#rrggbb``."""
    return f"#{bytes(colour).hex()}"
