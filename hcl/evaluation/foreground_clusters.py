"""Clusters of the foreground alone: step 3 of the fully unsupervised protocol (HCL, section 7)."""

import torch
from torch import Tensor

from hcl.distributed import World
from hcl.evaluation.clusters import KMeansConfig, cluster
from hcl.evaluation.resolution import nearest
from hcl.memory import GIB, free_memory


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
        ValueError: the foreground has fewer cells than clusters, or its cells do not fit in the memory.
    """
    cells = nearest(foreground, resolution).flatten(1)
    rows = _rows(points, foreground.shape[1:], cells, resolution)
    until = cells.sum(dim=1).cumsum(dim=0).tolist()
    images = world.slice(len(cells))
    share = slice(*((until[image - 1] if image else 0) for image in (images.start, images.stop)))
    found = cluster(rows, share, clusters, config, seed=seed, world=world)
    maps = torch.full_like(cells, clusters, dtype=torch.int64)
    maps[cells] = world.all_gather_rows(found.assignment)
    return maps.unflatten(1, (resolution, resolution))


def _rows(points: Tensor, grid: torch.Size, cells: Tensor, resolution: int) -> Tensor:
    """The points of all foreground cells (n, R·R), image after image."""
    token_of_cell = nearest(torch.arange(points.shape[1], device=points.device).view(1, *grid), resolution)
    token_of_cell = token_of_cell.flatten()
    counts = cells.sum(dim=1).tolist()
    _refuse_without_memory(sum(counts) * points.shape[2] * points.element_size(), points.device)
    rows = points.new_empty(sum(counts), points.shape[2])
    for own, inside, room in zip(points, cells, rows.split(counts), strict=True):
        torch.index_select(own, 0, token_of_cell[inside], out=room)
    return rows


def _refuse_without_memory(needed: int, device: torch.device) -> None:
    free = free_memory(device)
    if needed > free:
        raise ValueError(
            f"the foreground's cells take {needed / GIB:.1f} GiB on every rank, and {free / GIB:.1f} GiB are "
            "free: lower --label_resolution or --dimensions, or take fewer images; tokens that are kept are "
            "not computed again"
        )
