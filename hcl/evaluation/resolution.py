"""Resampling of id maps to the resolution at which they are compared."""

import torch
from torch import Tensor

IMAGES_AT_A_TIME = 64
"""Images whose maps are compared at once: tens of megabytes at 448 x 448 pixels."""


def nearest(maps: Tensor, size: int) -> Tensor:
    """Resample maps (B, h, w) of ids to (B, size, size) by nearest neighbour, rounding indices down."""
    rows, columns = (torch.arange(size, device=maps.device) * side // size for side in maps.shape[1:])
    return maps[:, rows[:, None], columns]
