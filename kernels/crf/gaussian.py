"""The Gaussian kernel over positions alone, by matrices.

It is the Kronecker product of one along rows and one along columns, row sums included, so that two small
matrix products give it exactly at any bandwidth.
"""

import math

import torch
from torch import Tensor

MAX_SIDE = 2**16


def gaussian_matrices(images: Tensor, sxy: float) -> tuple[Tensor, Tensor]:
    """The matrices (H, H) and (W, W) between which (..., H, W) float32 is filtered; images (..., H, W)."""
    along_rows, along_columns = (_gaussian_matrix(size, sxy, images.device) for size in images.shape[-2:])
    return along_rows, along_columns


def gaussian_reach(sxy: float) -> int:
    """How many pixels apart weights are no more than 2^-30, or all pixels are."""
    return min(math.ceil(sxy * math.sqrt(60 * math.log(2))), MAX_SIDE)


def _gaussian_matrix(size: int, sxy: float, device: torch.device) -> Tensor:
    """The Gaussian kernel between the positions of a line, symmetrically normalised. (size, size)."""
    position = torch.arange(size, dtype=torch.float32, device=device) / sxy
    weight = torch.exp(-0.5 * (position[:, None] - position).square())
    scale = weight.sum(dim=1).rsqrt()
    return scale[:, None] * weight * scale
