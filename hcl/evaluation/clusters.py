"""Clusters of tokens: standardisation, PCA and k-means, shared out over the ranks (HCL, section 7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hcl.bounds import require_at_least
from hcl.distributed import World
from hcl.evaluation.pca import PCA, fit_pca
from hcl.progress import progress
from kernels.kmeans import KMeans, initial_centroids, kmeans


@dataclass(kw_only=True)
class KMeansConfig:
    """Settings of k-means on tokens.

    Args:
        dimensions: of the tokens after standardisation and PCA.
        iterations: at most.
        restarts: for each seed; the one of lowest inertia counts.
        init: how the first centroids are chosen.
    """

    dimensions: int = 100
    iterations: int = 100
    restarts: int = 5
    init: Literal["random", "k-means++"] = "random"

    def __post_init__(self) -> None:
        require_at_least(1, self, "dimensions", "iterations", "restarts")


def principal_components(sets: Sequence[Tensor], dimensions: int, world: World) -> Tensor:
    """Standardised tokens on the main axes of all of them together, on this rank's device.

    Args:
        sets: the tokens of one or more data sets, each (images, N, C) of any float dtype, all on every rank.
        dimensions: axes to keep; fewer where there are fewer.
        world: the ranks; each sums up its share of the images.

    Returns:
        (images of all sets, N, dimensions) float32, the same on every rank.
    """
    mine = [tokens[world.slice(len(tokens))].flatten(0, 1) for tokens in sets]
    fitted = fit_pca(mine, dimensions, world.device, reduce=world.all_reduce)
    # An axis may point either way, and machines may differ in which.
    pca = PCA(world.broadcast(fitted.mean), world.broadcast(fitted.axes))
    projected = [pca.project(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2]) for tokens in sets]
    return torch.cat(projected)


def cluster(
    rows: Tensor,
    share: slice,
    clusters: int,
    config: KMeansConfig,
    *,
    seed: int,
    world: World,
    spherical: bool = False,
    weights: Tensor | None = None,
) -> KMeans:
    """k-means of rows that every rank has, of which each rank assigns and sums its share.

    Args:
        rows: (n, d), all of them on every rank.
        share: this rank's; the shares of all ranks in order are the whole.
        clusters: K.
        config: its settings.
        seed: of the draw of the first centroids.
        world: the ranks.
        spherical: cluster by cosine.
        weights: (n,) int64, how often each row counts; None: once.

    Returns:
        The run of lowest inertia; its assignment is of this rank's share alone.

    Raises:
        ValueError: there are fewer rows than clusters, or rows are not finite.
    """
    if clusters > len(rows):
        raise ValueError(
            f"cannot form {clusters} clusters of {len(rows)} tokens: lower the number of clusters, or "
            "take more images"
        )
    mine, generator = rows[share], torch.Generator().manual_seed(seed)
    starts = torch.stack(
        [
            initial_centroids(rows, clusters, config.init, generator, spherical=spherical, weights=weights)
            for _ in range(config.restarts)
        ]
    )
    # At most: a run ends once no row changes its cluster.
    steps = 1 + config.restarts * (config.iterations + 1)
    with progress(world, f"k-means, K = {clusters}", "step", total=steps, within=True) as bar:

        def reduce(totals: Tensor) -> Tensor:  # which is called once before the first step, and once a step
            bar.update()
            return world.all_reduce(totals)

        return kmeans(
            mine,
            clusters,
            iterations=config.iterations,
            init=world.broadcast(starts),
            spherical=spherical,
            weights=None if weights is None else weights[share],
            reduce=reduce,
        )


def rows_of(images: slice, cells: int) -> slice:
    """The rows of some consecutive images, where each image has so many."""
    return slice(images.start * cells, images.stop * cells)


def require_enough(clusters: int, images: int, grid: tuple[int, int], name: str, *, setting: str) -> None:
    """Raise a ValueError where images, those of ``name``, have fewer tokens than clusters are asked for."""
    available = images * grid[0] * grid[1]
    if clusters > available:
        raise ValueError(
            f"{clusters} clusters are more than the tokens of {name} at this size, {available}: "
            f"lower {setting}"
        )
