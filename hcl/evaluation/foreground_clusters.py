"""Clusters of the foreground alone: step 3 of the fully unsupervised protocol (HCL, section 7)."""

import torch
from torch import Tensor

from hcl.distributed import World
from hcl.evaluation.clusters import KMeansConfig, cluster
from hcl.evaluation.resolution import nearest


def foreground_clusters(
    points: Tensor,
    foreground: Tensor,
    clusters: int,
    resolution: int,
    config: KMeansConfig,
    *,
    seed: int,
    world: World,
) -> Tensor:
    """k-means of the foreground's cells at the resolution at which maps are compared.

    Points are taken there by nearest neighbour, so that one counts as often as it has cells.

    Args:
        points: (n, h·w, d), every image on every rank.
        foreground: (n, h, w) bool.
        clusters: K.
        resolution: side R of a map in cells.
        config: of k-means.
        seed: of k-means.
        world: the ranks; each assigns the cells of its share of the images.

    Returns:
        (n, R, R) int64 on every rank: cluster ids from 0 on, and K in the background.

    Raises:
        ValueError: the foreground has fewer cells than clusters.
    """
    cells = nearest(foreground, resolution).flatten(1)
    rows = _rows(points, foreground.shape[1:], cells, resolution)
    until = cells.sum(dim=1).cumsum(dim=0).tolist()
    images = world.slice(len(cells))
    share = slice(*((until[image - 1] if image else 0) for image in (images.start, images.stop)))
    found = cluster(rows, share, clusters, config, seed=seed, world=world)
    maps = torch.full_like(cells, clusters, dtype=torch.int64)
    maps[cells] = world.gather_rows(found.assignment)
    return maps.unflatten(1, (resolution, resolution))


def _rows(points: Tensor, grid: torch.Size, cells: Tensor, resolution: int) -> Tensor:
    """The points of all foreground cells (n, R·R), image after image."""
    token_of_cell = nearest(torch.arange(points.shape[1], device=points.device).view(1, *grid), resolution)
    token_of_cell = token_of_cell.flatten()
    return torch.cat([own[token_of_cell[inside]] for own, inside in zip(points, cells, strict=True)])
