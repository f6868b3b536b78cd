"""The first centroids of k-means."""

import torch
import torch.nn.functional as F
from torch import Tensor

INITIALISATIONS = ("random", "k-means++")


def initial_centroids(
    x: Tensor,
    clusters: int,
    init: str,
    generator: torch.Generator,
    *,
    spherical: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Draw the first centroids; with a CPU generator the draw is the same on every device.

    Args:
        x: (N, D) floating point, N >= clusters.
        clusters: the number of centroids K.
        init: "random" (K distinct rows) or "k-means++".
        generator: random generator of the draw, on the CPU.
        spherical: whether "k-means++" compares only the directions of rows.
        weights: (N,) int64, at least 0, how often each row counts: the draw is that of rows repeated this
            often. None: once.

    Returns:
        (K, D) rows of x.
    """
    if init == "random":
        return x[_distinct(len(x), clusters, generator, weights).to(x.device)]
    return x[_plus_plus(F.normalize(x, dim=1) if spherical else x, clusters, generator, weights)]


def _distinct(rows: int, clusters: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """Draw the indices (K,) of rows, none more often than it counts, on the CPU."""
    if weights is None:
        return torch.randperm(rows, generator=generator)[:clusters]
    until = weights.cpu().cumsum(dim=0)
    drawn = torch.randperm(int(until[-1]), generator=generator)[:clusters]
    return torch.searchsorted(until, drawn, right=True)


def _plus_plus(x: Tensor, clusters: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """Draw the indices (K,) of rows, each in proportion to its squared distance from the nearest before."""
    draws = torch.rand(clusters, generator=generator, dtype=torch.float64).to(x.device)
    distance = x.new_ones(len(x))
    chosen = []
    for step, draw in enumerate(draws):
        mass = (distance if weights is None else distance.double() * weights).cumsum(
            dim=0, dtype=torch.float64
        )
        index = torch.searchsorted(mass, draw * mass[-1:], right=True).clamp(max=len(x) - 1)
        chosen.append(index)
        nearest = torch.cdist(x, x[index], compute_mode="donot_use_mm_for_euclid_dist")[:, 0].square()
        distance = torch.minimum(distance, nearest) if step else nearest
    return torch.cat(chosen)
