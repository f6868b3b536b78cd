"""Standardisation and PCA of tokens that are too many to copy: two passes, chunk by chunk."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 4096
"""Rows moved to the device and to full precision at a time; few enough to sum their products in float32."""


class PCA(NamedTuple):
    """Projection onto the principal axes of standardised rows.

    Attributes:
        mean: (D,) float32.
        axes: (D, d) float32, each channel divided by its standard deviation, sorted by descending variance.
    """

    mean: Tensor
    axes: Tensor

    def project(self, tokens: Tensor) -> Tensor:
        """Project rows (n, D) of any float dtype and device to (n, d) float32 on the device of the axes."""
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
    """Compute the principal axes of rows after standardising each channel (mean 0, standard deviation 1).

    The covariance of standardised channels is their correlation. It follows from sums and products of the raw
    rows, so that the standardised rows are never stored. Products are summed in float32 within a chunk and in
    float64 over the chunks, sums always in float64.

    Args:
        parts: this rank's rows, each (n, D) of any float dtype and device.
        dimensions: number of axes to keep; there are at most min(rows of all ranks, D).
        device: device to compute on.
        reduce: function that sums a tensor over the ranks.
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
    """Return a row to subtract from all others, the same on every rank: the mean of one row of each rank.

    Without this shift, the products would cancel where a channel's mean is much larger than its deviation.
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
