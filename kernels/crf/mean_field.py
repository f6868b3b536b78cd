"""Mean field with the bilateral filter as whoever calls gives it, and the Gaussian filter by matrices.

The Gaussian kernel over positions alone is the Kronecker product of one along rows and one along columns, row
sums included, so that two small matrix products give it exactly at any bandwidth.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kernels.crf.energy import Pairwise, unary_energy

Filter = Callable[[Tensor], Tensor]


def mean_field(probabilities: Tensor, bilateral: Filter, iterations: int, pairwise: Pairwise) -> Tensor:
    """Alternate messages and softmax; nothing leaves the device.

    Args:
        probabilities: (B, C, H, W) float32.
        bilateral: sums (B, any, H, W) by the bilateral kernel's weights, not normalised.
        iterations: how often messages are sent.
        pairwise: bandwidths and weights.

    Returns:
        The marginals, (B, C, H, W) float32.
    """
    unary = unary_energy(probabilities)
    along_rows, along_columns = (
        _gaussian_matrix(size, pairwise.gaussian_sxy, unary.device) for size in unary.shape[2:]
    )
    scale = bilateral(torch.ones_like(unary[:, :1])).rsqrt()
    marginals = (-unary).softmax(dim=1)
    for _ in range(iterations):
        message = pairwise.gaussian_compat * (along_rows @ marginals @ along_columns)
        message += pairwise.bilateral_compat * scale * bilateral(scale * marginals)
        marginals = (message - unary).softmax(dim=1)
    return marginals


def _gaussian_matrix(size: int, sxy: float, device: torch.device) -> Tensor:
    """The Gaussian kernel between the positions of a line, symmetrically normalised. (size, size)."""
    position = torch.arange(size, dtype=torch.float32, device=device) / sxy
    weight = torch.exp(-0.5 * (position[:, None] - position).square())
    scale = weight.sum(dim=1).rsqrt()
    return scale[:, None] * weight * scale
