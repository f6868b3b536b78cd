"""Clusters scored against classes: overclustering, and K = number of classes (HCL, section 7)."""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from hcl.bounds import require_at_least
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.clusters import KMeansConfig, cluster, principal_components, require_enough, rows_of
from hcl.evaluation.metrics import CLUSTERING_SCORES, ClusteringScores, Scores, summary
from hcl.evaluation.protocol import FRAMES, Frame, ProtocolConfig, facts, open_extractor, open_labelled
from hcl.evaluation.resolution import IMAGES_AT_A_TIME, nearest
from hcl.evaluation.token_store import TokenStore, stored_tokens
from hcl.progress import progress

LABELS_USED_FOR = {
    "precision": "giving each cluster the class in which it is most precise, on the scored images",
    "hungarian": "matching clusters with classes one to one, on the scored images",
}

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class OverclusteringConfig(ProtocolConfig, KMeansConfig):
    """Overclustering: k-means of all tokens, scored after assigning a class to each cluster.

    Args:
        clusters: K of k-means, or several values such as [21, 500]; by default 500 for overclustering, and
            the number of classes for the protocol with as many clusters as classes.
        matching: how clusters get their classes: "precision" gives each cluster the class in which it is most
            precise; "hungarian" matches clusters and classes one to one by IoU, and gives class 0 to the
            remaining clusters.
        seeds: number of k-means runs, with the seeds 0 to seeds - 1; their mean and standard deviation are
            reported.
        label_resolution: side in cells at which clusters and labels are compared; both are resampled by
            nearest neighbour.
    """

    published: ClassVar[dict[str, Frame]] = dict.fromkeys(FRAMES, Frame(448, "resize"))

    clusters: int | list[int] | None = 500
    matching: Literal["precision", "hungarian"] = "precision"
    seeds: int = 5
    label_resolution: int = 100

    def __post_init__(self) -> None:
        ProtocolConfig.__post_init__(self)
        KMeansConfig.__post_init__(self)
        require_at_least(1, self, "seeds", "label_resolution")
        if self.clusters is not None and (not self._numbers or min(self._numbers) < 1):
            raise ValueError(f"clusters is {self.clusters}; it must be one or more numbers of at least 1")

    @property
    def _numbers(self) -> list[int]:
        assert self.clusters is not None
        return self.clusters if isinstance(self.clusters, list) else [self.clusters]

    def cluster_numbers(self, classes: int) -> list[int]:
        """Return every requested K for a data set with this number of classes."""
        return [classes] if self.clusters is None else self._numbers


@dataclass(kw_only=True)
class ClassClusteringConfig(OverclusteringConfig):
    """K = number of classes: like overclustering, but with clusters and classes matched one to one."""

    published: ClassVar[dict[str, Frame]] = FRAMES

    clusters: int | list[int] | None = None
    matching: Literal["precision", "hungarian"] = "hungarian"


def run(config: OverclusteringConfig, world: World) -> dict[str, Any]:
    """Score the configuration's tokens by clustering them.

    Returns:
        The input of `hcl.evaluation.report`: facts of the run, and under ``results`` one entry for each K.

    Raises:
        ValueError: there are fewer tokens than clusters, or a setting, file or label is invalid.
        FileNotFoundError: data or weights are missing.
    """
    dataset = open_labelled(config.data, world)
    extractor = open_extractor(config, world)
    numbers = config.cluster_numbers(len(dataset.class_names))
    grid = extractor.grid(config.frame.size)
    require_enough(max(numbers), len(dataset), grid, dataset.name, setting="--clusters")
    with stored_tokens(config, dataset, extractor, world) as store:
        points = principal_components([store.tokens], config.dimensions, world)
        if points.shape[2] < config.dimensions:
            logger.warning("PCA keeps only %d dimensions, because the tokens have no more", points.shape[2])
        return {
            **facts(
                config,
                dataset,
                extractor,
                label_resolution=config.label_resolution,
                labels_used_for=LABELS_USED_FOR[config.matching],
            ),
            "pca_dimensions": points.shape[2],
            "results": [score(points, store, clusters, dataset, config, world) for clusters in numbers],
        }


def score(
    points: Tensor,
    store: TokenStore,
    clusters: int,
    dataset: Dataset,
    config: OverclusteringConfig,
    world: World,
) -> dict[str, Any]:
    """Cluster the tokens with every seed, and score the clusters.

    Args:
        points: (images, h*w, dimensions) float32, from `principal_components`, the same on every rank.
        store: tokens and labels of the images.
        clusters: K.
        dataset: data set that is scored.
        config: seeds, restarts, iterations, matching, label resolution.
        world: the ranks.

    Returns:
        The entry of ``results`` for this K.
    """
    title = f"k-means, K = {clusters}"
    scores = {
        seed: _score_once(points, store, clusters, dataset, config, seed, world)
        for seed in progress(world, title, "seed", steps=range(config.seeds))
    }
    return {
        "name": f"K = {clusters}",
        "clusters": clusters,
        **summary(scores, dataset.class_names, CLUSTERING_SCORES),
    }


def _score_once(
    points: Tensor,
    store: TokenStore,
    clusters: int,
    dataset: Dataset,
    config: OverclusteringConfig,
    seed: int,
    world: World,
) -> Scores:
    images = world.slice(len(store))
    share = rows_of(images, points.shape[1])
    found = cluster(points.flatten(0, 1), share, clusters, config, seed=seed, world=world)
    metric = ClusteringScores(
        clusters, len(dataset.class_names), matching=config.matching, ignore_index=dataset.ignore_index
    ).to(world.device)
    labels = store.labels[images]
    maps = found.assignment.view(len(labels), *store.grid)
    parts = zip(maps.split(IMAGES_AT_A_TIME), labels.split(IMAGES_AT_A_TIME), strict=True)
    for maps_part, labels_part in parts:
        labels_part = nearest(labels_part.to(world.device), config.label_resolution)
        metric.update(nearest(maps_part, config.label_resolution), labels_part)
    return metric.compute()
