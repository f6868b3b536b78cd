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
    """Run k-means on the foreground's cells, at the resolution at which maps are compared.

    Points are resampled to that resolution by nearest neighbour, so that all cells of a point are equal: the
    point is clustered once, weighted by its number of cells.

    Args:
        points: (n, h·w, d), all images on every rank.
        foreground: (n, h, w) bool.
        clusters: K.
        resolution: side R of a map in cells.
        config: settings of k-means.
        seed: seed of k-means.
        world: the ranks; each assigns the points of its share of the images.

    Returns:
        (n, R, R) int64 on every rank: cluster ids from 0 on, and K in the background.

    Raises:
        ValueError: the foreground has fewer points (with at least one cell) than clusters.
    """
    cells = _cells_of_points(foreground, resolution)
    inside = foreground.flatten(1) & (cells > 0)
    until = inside.sum(dim=1).cumsum(dim=0).tolist()
    images = world.slice(len(inside))
    share = slice(*((until[image - 1] if image else 0) for image in (images.start, images.stop)))
    weights = cells.expand_as(inside)[inside]
    found = cluster(points[inside], share, clusters, config, seed=seed, world=world, weights=weights)
    ids = torch.full_like(inside, clusters, dtype=torch.int64)
    ids[inside] = world.all_gather_rows(found.assignment)
    return nearest(ids.view_as(foreground), resolution)


def _cells_of_points(foreground: Tensor, resolution: int) -> Tensor:
    """Return the number of cells that each point of an image covers in a map, (h·w,)."""
    points = torch.arange(foreground[0].numel(), device=foreground.device).view_as(foreground[:1])
    return nearest(points, resolution).flatten().bincount(minlength=points.numel())
