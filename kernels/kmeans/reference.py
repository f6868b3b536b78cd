"""Nearest centroid and Lloyd step in plain torch."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.precision import compute_dtype, without_autocast
from kernels.scatter import add_at

# Largest number of elements in a chunk's scores (rows, K) and rows (rows, D): it fits into a CPU's cache, and
# a gigabyte keeps a GPU busy.
CHUNK_ELEMENTS = 2**19
GPU_CHUNK_ELEMENTS = 2**28


class LloydStep(NamedTuple):
    """The result of one pass over the rows; all but `assignment` may be summed over shards."""

    assignment: Tensor
    sums: Tensor
    counts: Tensor
    inertia: Tensor


def nearest_centroid(x: Tensor, centroids: Tensor) -> Tensor:
    """Compute argmin_j ||c_j||^2 - 2 x . c_j, chunk by chunk."""
    dtype = compute_dtype(x, centroids)
    centroids = centroids.to(dtype)
    squares = centroids.square().sum(dim=1)
    with without_autocast(x):
        nearest = [
            torch.addmm(squares, rows.to(dtype), centroids.T, alpha=-2).argmin(dim=1)
            for rows in x.split(chunk_rows(x, len(centroids)))
        ]
    return torch.cat(nearest)


def cluster_sums(
    x: Tensor, assignment: Tensor, clusters: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum and count the rows of every cluster, in float64 and int64; same input, same bits.

    Negative assignments belong to no cluster: they fall into bin 0, which is dropped. Assignments that are
    too large stay out of bounds and raise an error.
    """
    bins = assignment.clamp(min=-1) + 1
    sums = x.new_zeros(clusters + 1, x.shape[1], dtype=torch.float64)
    for part in parts(x, clusters):
        add_at(sums, bins[part], weighted(x[part].double(), weights, part))
    each = torch.ones_like(bins) if weights is None else weights
    counts = torch.zeros_like(sums[:, 0], dtype=torch.int64).scatter_add_(0, bins, each)
    return sums[1:], counts[1:]


def lloyd_step(x: Tensor, centroids: Tensor, weights: Tensor | None = None) -> LloydStep:
    """Assign every row, then sum: sum_i ||x_i - c||^2 follows from the sums without another pass."""
    assignment = nearest_centroid(x, centroids)
    sums, counts = cluster_sums(x, assignment, len(centroids), weights)
    c = centroids.double()
    inertia = sum_of_squares(x, weights) - 2 * (c * sums).sum() + (c.square().sum(dim=1) * counts).sum()
    return LloydStep(assignment, sums, counts, inertia.clamp(min=0))


def sum_of_squares(x: Tensor, weights: Tensor | None) -> Tensor:
    """The summed squared lengths of rows (N, D), 0-d float64."""
    squares = (weighted(x[part].double().square(), weights, part).sum() for part in parts(x, 1))
    return sum(squares, x.new_zeros((), dtype=torch.float64))


def weighted(rows: Tensor, weights: Tensor | None, part: slice | Tensor) -> Tensor:
    """Multiply rows (n, D), a part of (N, D), by their ``weights`` (N,), if any."""
    return rows if weights is None else rows * weights[part, None]


def parts(x: Tensor, clusters: int) -> Iterator[slice]:
    """Yield slices of the rows to take at a time for this many clusters."""
    size = chunk_rows(x, clusters)
    return (slice(start, start + size) for start in range(0, len(x), size))


def chunk_rows(x: Tensor, clusters: int) -> int:
    """Return how many rows of x to take at a time for this many clusters."""
    elements = GPU_CHUNK_ELEMENTS if x.is_cuda else CHUNK_ELEMENTS
    return max(elements // max(x.shape[1], clusters), 1)
