"""Where k-means starts from."""

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
    """Draw the first centroids; the CPU generator makes the draw the same on every device.

    Args:
        x: (N, D) floating point, N >= clusters.
        clusters: K.
        init: "random" (K distinct rows) or "k-means++".
        generator: of the draw, on the CPU.
        spherical: whether rows differ by their directions alone, which "k-means++" measures then.
        weights: (N,) int64 from 0 up, how often each row counts: what is drawn is what would be if it stood
            there so many times. None: once.

    Returns:
        (K, D) rows of x.
    """
    if init == "random":
        return x[_distinct(len(x), clusters, generator, weights).to(x.device)]
    return x[_plus_plus(F.normalize(x, dim=1) if spherical else x, clusters, generator, weights)]


def _distinct(rows: int, clusters: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """The places (K,) of rows, none more often than it counts, on the CPU."""
    if weights is None:
        return torch.randperm(rows, generator=generator)[:clusters]
    until = weights.cpu().cumsum(dim=0)
    drawn = torch.randperm(int(until[-1]), generator=generator)[:clusters]
    return torch.searchsorted(until, drawn, right=True)


def _plus_plus(x: Tensor, clusters: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """The places (K,) of rows, each drawn in proportion to its squared distance from those before."""
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
