"""Standardisation and PCA of more tokens than should be copied: two passes, chunk by chunk."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 4096
"""Rows brought to the device and to full precision at a time; few enough to sum their products in float32."""


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


def fit_pca(
    parts: Sequence[Tensor],
    dimensions: int,
    device: torch.device,
    *,
    reduce: Callable[[Tensor], Tensor] = lambda total: total,
) -> PCA:
    """Main axes of the rows after standardising each channel (mean 0, standard deviation 1).

    The covariance of standardised channels is their correlation: it follows from sums and products of the raw
    rows, summed in float32 within a chunk and in float64 over all, so that the standardised rows never exist.

    Args:
        parts: this rank's rows, each (n, D) of any float dtype and device.
        dimensions: axes to keep; at most min(rows of all ranks, D) can be had.
        device: where to compute.
        reduce: sums a tensor over the ranks.
    """
    channels = parts[0].shape[1]
    sums = torch.zeros(channels + 1, dtype=torch.float64, device=device)
    products = torch.zeros(channels, channels, dtype=torch.float64, device=device)
    shift = _some_row(parts, device, reduce)
    for chunk in (chunk for part in parts for _, chunk in _chunks(part, device)):
        shifted = (chunk.double() - shift).float()
        sums[:-1] += shifted.sum(dim=0, dtype=torch.float64)
        sums[-1] += len(chunk)
        products += shifted.T @ shifted
    sums, products = reduce(sums), reduce(products)
    rows = sums[-1]
    mean = sums[:-1] / rows
    covariance = products / rows - mean.outer(mean)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    deviation = deviation.where(deviation > 0, 1)
    _, vectors = torch.linalg.eigh(covariance / deviation.outer(deviation))
    axes = vectors.flip(1)[:, : min(dimensions, int(rows), channels)]
    return PCA((mean + shift).float(), (axes / deviation[:, None]).float())


def _some_row(parts: Sequence[Tensor], device: torch.device, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """A row to shift all others by, the same on every rank: the mean of the ranks' first ones.

    Shifted, the products do not cancel where a channel's mean is large beside its deviation.
    """
    first = torch.zeros(parts[0].shape[1] + 1, dtype=torch.float64, device=device)
    for part in parts:
        if len(part):
            first[:-1], first[-1] = part[0].to(device, torch.float64), 1
    first = reduce(first)
    return first[:-1] / first[-1]


def _chunks(tokens: Tensor, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(tokens), CHUNK):
        yield start, tokens[start : start + CHUNK].to(device)
