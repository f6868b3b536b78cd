"""The Gaussian kernel over positions alone, as two matrices.

The kernel and its row sums are Kronecker products of one kernel along rows and one along columns, so that two
small matrix products apply it exactly at any bandwidth.
"""

import math

import torch
from torch import Tensor

MAX_SIDE = 2**16


def gaussian_matrices(images: Tensor, sxy: float) -> tuple[Tensor, Tensor]:
    """Return matrices (H, H) and (W, W) that filter (..., H, W) float32 from the left and from the right."""
    along_rows, along_columns = (_gaussian_matrix(size, sxy, images.device) for size in images.shape[-2:])
    return along_rows, along_columns


def gaussian_reach(sxy: float) -> int:
    """Return the distance in pixels at which weights are at most 2^-30, limited to `MAX_SIDE`."""
    return min(math.ceil(sxy * math.sqrt(60 * math.log(2))), MAX_SIDE)


def _gaussian_matrix(size: int, sxy: float, device: torch.device) -> Tensor:
    """The Gaussian kernel between the positions of a line, symmetrically normalised. (size, size)."""
    position = torch.arange(size, dtype=torch.float32, device=device) / sxy
    weight = torch.exp(-0.5 * (position[:, None] - position).square())
    scale = weight.sum(dim=1).rsqrt()
    return scale[:, None] * weight * scale
