"""Where k-means starts from."""

import torch
from torch import Tensor

INITIALISATIONS = ("random", "k-means++")


def initial_centroids(x: Tensor, clusters: int, init: str, generator: torch.Generator) -> Tensor:
    """Draw the first centroids; the CPU generator makes the draw the same on every device.

    Args:
        x: (N, D) floating point, N >= clusters.
        clusters: K.
        init: "random" (K distinct rows) or "k-means++".
        generator: of the draw, on the CPU.

    Returns:
        (K, D) rows of x.
    """
    if init == "random":
        return x[torch.randperm(len(x), generator=generator)[:clusters].to(x.device)]
    return _plus_plus(x, clusters, generator)


def _plus_plus(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Draw every row in proportion to its squared distance from the rows already drawn."""
    draws = torch.rand(clusters, generator=generator, dtype=torch.float64).to(x.device)
    distance = x.new_ones(len(x))
    chosen = []
    for step, draw in enumerate(draws):
        mass = distance.cumsum(dim=0, dtype=torch.float64)
        index = torch.searchsorted(mass, draw * mass[-1:], right=True).clamp(max=len(x) - 1)
        chosen.append(x.index_select(0, index))
        nearest = torch.cdist(x, chosen[-1], compute_mode="donot_use_mm_for_euclid_dist")[:, 0].square()
        distance = torch.minimum(distance, nearest) if step else nearest
    return torch.cat(chosen)
