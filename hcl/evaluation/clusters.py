"""Clustering of tokens: standardisation, PCA and k-means, distributed over the ranks (HCL, section 7)."""

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
        dimensions: number of dimensions of the tokens after standardisation and PCA.
        iterations: maximum number of k-means iterations.
        restarts: number of k-means runs for each seed; the one with the lowest inertia counts.
        init: how the first centroids are chosen.
    """

    dimensions: int = 100
    iterations: int = 100
    restarts: int = 5
    init: Literal["random", "k-means++"] = "random"

    def __post_init__(self) -> None:
        require_at_least(1, self, "dimensions", "iterations", "restarts")


def principal_components(sets: Sequence[Tensor], dimensions: int, world: World) -> Tensor:
    """Standardise tokens and project them onto the principal axes of all sets together.

    Args:
        sets: the tokens of one or more data sets, each (images, N, C) of any float dtype, all on every rank.
        dimensions: number of axes to keep; if there are fewer, all are kept.
        world: the ranks; each computes the sums of its share of the images.

    Returns:
        (images of all sets, N, dimensions) float32 on this rank's device, the same on every rank.
    """
    mine = [tokens[world.slice(len(tokens))].flatten(0, 1) for tokens in sets]
    fitted = fit_pca(mine, dimensions, world.device, reduce=world.all_reduce)
    # The sign of an axis is arbitrary and may differ between machines.
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
    """Run k-means on rows that every rank has; each rank assigns and sums its share of them.

    Args:
        rows: (n, d), all rows on every rank.
        share: rows of this rank; the shares of all ranks, in rank order, make up all rows.
        clusters: K.
        config: settings of k-means.
        seed: seed of the random initial centroids.
        world: the ranks.
        spherical: whether to cluster by cosine.
        weights: (n,) int64, how often each row counts; None for once each.

    Returns:
        The run with the lowest inertia; its assignment covers only this rank's share.

    Raises:
        ValueError: there are fewer rows than clusters, or rows are not finite.
    """
    if clusters > len(rows):
        raise ValueError(
            f"cannot form {clusters} clusters from {len(rows)} tokens: lower the number of clusters, or "
            "use more images"
        )
    mine, generator = rows[share], torch.Generator().manual_seed(seed)
    starts = torch.stack(
        [
            initial_centroids(rows, clusters, config.init, generator, spherical=spherical, weights=weights)
            for _ in range(config.restarts)
        ]
    )
    # An upper bound: a run ends early once no row changes its cluster.
    steps = 1 + config.restarts * (config.iterations + 1)
    with progress(world, f"k-means, K = {clusters}", "step", total=steps, within=True) as bar:

        def reduce(totals: Tensor) -> Tensor:  # called once before the first step, and once per step
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
    """Return the rows of consecutive images that have ``cells`` rows each."""
    return slice(images.start * cells, images.stop * cells)


def require_enough(clusters: int, images: int, grid: tuple[int, int], name: str, *, setting: str) -> None:
    """Raise a ValueError if the images of the data set ``name`` have fewer tokens than ``clusters``."""
    available = images * grid[0] * grid[1]
    if clusters > available:
        raise ValueError(
            f"{clusters} clusters are too many for the {available} tokens of {name} at this size: "
            f"lower {setting}"
        )
