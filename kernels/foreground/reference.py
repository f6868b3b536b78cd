"""CLS attention to foreground map in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR_RADIUS = 3
BLUR_SIGMA = 0.6


def foreground_mask(cls_attention: Tensor, keep_mass: float, min_size: int) -> Tensor:
    """Blur the mean head, keep its greatest cells up to `keep_mass`, drop small components.

    In float64, so that neither autocast nor tf32 nor the order of a sum moves the threshold.
    """
    attention = cls_attention.double().mean(dim=1)
    rows, columns = (_blur_matrix(size, attention.device) for size in attention.shape[-2:])
    blurred = rows @ attention @ columns.T
    return _drop_small_components(_greatest_cells(blurred, keep_mass), min_size)


def _blur_matrix(size: int, device: torch.device) -> Tensor:
    """Gaussian blur with reflect padding as a (size, size) matrix, which works for any size."""
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=device)
    taps = torch.exp(-0.5 * (offsets.double() / BLUR_SIGMA).square())
    cells = torch.arange(size, device=device)
    period = max(2 * (size - 1), 1)
    folded = (cells[:, None] + offsets) % period
    source = torch.minimum(folded, period - folded)
    reads = (source[:, :, None] == cells).double()
    return torch.einsum("otc,t->oc", reads, taps / taps.sum())


def _greatest_cells(attention: Tensor, keep_mass: float) -> Tensor:
    """Mark the cells at which the ascending cumulative mass exceeds 1 - keep_mass."""
    ascending, order = attention.flatten(1).sort(dim=1, stable=True)
    mass = ascending.cumsum(dim=1)
    kept = mass > (1 - keep_mass) * mass[:, -1:]
    return torch.zeros_like(kept).scatter(1, order, kept).view(attention.shape)


def _drop_small_components(mask: Tensor, min_size: int) -> Tensor:
    """Drop 8-connected components of fewer than `min_size` <= 3 cells.

    A cell of a component of three or more either has two neighbours or has a neighbour that has two.
    """
    cells = mask[:, None].float()
    crowd = F.conv2d(cells, cells.new_ones(1, 1, 3, 3), padding=1) * cells
    return mask & (F.max_pool2d(crowd, 3, stride=1, padding=1)[:, 0] >= min_size)
