"""Standardisation and PCA of more tokens than should be copied: two passes, chunk by chunk."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 16384
"""Rows brought to the device and to full precision at a time."""


class PCA(NamedTuple):
    """Projection onto the main axes of standardised rows.

    Attributes:
        mean: (D,) float32.
        axes: (D, d) float32, each channel divided by its standard deviation, the largest variance first.
    """

    mean: Tensor
    axes: Tensor

    def project(self, tokens: Tensor) -> Tensor:
        """Rows (n, D) of any float dtype and device to (n, d) float32 on the device of the axes."""
        projected = torch.empty(len(tokens), self.axes.shape[1], device=self.axes.device)
        for start, chunk in _chunks(tokens, self.axes.device):
            torch.mm(chunk.float() - self.mean, self.axes, out=projected[start : start + len(chunk)])
        return projected


def fit_pca(tokens: Tensor, dimensions: int, device: torch.device) -> PCA:
    """Main axes of the rows after standardising each channel (mean 0, standard deviation 1).

    The covariance of standardised channels is their correlation: it follows from sums and products of the raw
    rows, accumulated in float64, so that the standardised rows never exist.

    Args:
        tokens: (n, D) of any float dtype and device.
        dimensions: axes to keep; at most min(n, D) can be had.
        device: where to compute.
    """
    rows, channels = tokens.shape
    total = torch.zeros(channels, dtype=torch.float64, device=device)
    products = torch.zeros(channels, channels, dtype=torch.float64, device=device)
    # Shifted by one row, the products do not cancel where a channel's mean is large beside its deviation.
    shift = tokens[0].to(device, torch.float64)
    for _, chunk in _chunks(tokens, device):
        shifted = chunk.double() - shift
        total += shifted.sum(dim=0)
        products.addmm_(shifted.T, shifted)
    mean = total / rows
    covariance = products / rows - mean.outer(mean)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    deviation = deviation.where(deviation > 0, 1)
    _, vectors = torch.linalg.eigh(covariance / deviation.outer(deviation))
    axes = vectors.flip(1)[:, : min(dimensions, rows, channels)]
    return PCA((mean + shift).float(), (axes / deviation[:, None]).float())


def _chunks(tokens: Tensor, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(tokens), CHUNK):
        yield start, tokens[start : start + CHUNK].to(device)
