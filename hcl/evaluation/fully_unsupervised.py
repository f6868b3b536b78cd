"""Segmentation without labels: clusters of the foreground, merged into communities (HCL, section 7).

Ziegler and Asano, "Self-Supervised Learning of Object Parts for Semantic Segmentation", 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hcl.bounds import require_above_zero, require_at_least, require_share
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.cluster_foreground import (
    PrecisionSums,
    PrecisionThreshold,
    jaccard_sums,
    otsu_threshold,
    precision_sums,
    published_threshold,
)
from hcl.evaluation.clusters import KMeansConfig, cluster, principal_components, require_enough, rows_of
from hcl.evaluation.communities import communities, require_infomap
from hcl.evaluation.cooccurrence import cooccurrence_sums
from hcl.evaluation.foreground_clusters import foreground_clusters
from hcl.evaluation.foreground_scores import ForegroundScores, object_labels, require_objects
from hcl.evaluation.metrics import CLUSTERING_SCORES, ClusteringScores, Scores, over_seeds, summary
from hcl.evaluation.protocol import ProtocolConfig, facts, images_of, open_extractor, open_two_splits
from hcl.evaluation.resolution import IMAGES_AT_A_TIME, nearest
from hcl.evaluation.token_store import TokenStore, stored_tokens
from hcl.models.backbones import BACKBONES
from hcl.progress import progress
from kernels.foreground import foreground_mask

Choice = Literal["published", "otsu"]
TRAIN_SPLITS = {"voc": "train", "coco": "Coco164kFull_Stuff_Coarse", "scenes": "train", "folder": "train"}


@dataclass(kw_only=True)
class FullyUnsupervisedConfig(ProtocolConfig, KMeansConfig):
    """Fully unsupervised segmentation: cluster-based foreground extraction, then community detection.

    Args:
        train_split: split that is clustered together with the scored one; by default train, for coco the
            49,629 images of Coco164kFull_Stuff_Coarse.
        keep_mass: share of the attention that is kept as foreground, in (0, 1].
        extraction_clusters: K of the spherical k-means that finds the foreground's clusters.
        thresholds: how to decide which clusters are foreground: "published" picks the precision that fits the
            labels of the train split best, "otsu" reads no labels; each is scored.
        community_clusters: K of k-means on the foreground; by default 179 at patch size 8, otherwise 189.
        edge_threshold: minimum co-occurrence, in both directions, of two clusters that are linked.
        markov_time: Markov time of Infomap.
        preferred_modules: number of communities that Infomap prefers.
        seeds: number of Infomap runs, with the seeds 1 to seeds.
        label_resolution: side in cells at which maps and labels are compared.
    """

    train_split: str | None = None
    keep_mass: float = 0.65
    extraction_clusters: int = 200
    thresholds: list[Choice] = field(default_factory=lambda: ["published", "otsu"])
    community_clusters: int | None = None
    edge_threshold: float = 0.03
    markov_time: float = 1.0
    preferred_modules: int = 20
    seeds: int = 10
    label_resolution: int = 100

    def __post_init__(self) -> None:
        ProtocolConfig.__post_init__(self)
        KMeansConfig.__post_init__(self)
        counts = (
            "extraction_clusters",
            "community_clusters",
            "preferred_modules",
            "seeds",
            "label_resolution",
        )
        require_at_least(1, self, *counts)
        require_share(self, "keep_mass")
        require_above_zero(self, "markov_time")
        if not self.thresholds:
            raise ValueError("thresholds is empty; choose published, otsu or both")

    @property
    def foreground_clusters(self) -> int:
        """K of k-means on the foreground."""
        patch_size = BACKBONES[self.chosen_backbone.name].vit.patch_size
        return self.community_clusters or (179 if patch_size == 8 else 189)

    @property
    def training_split(self) -> str:
        """The split that is clustered together with the scored one."""
        return self.train_split or TRAIN_SPLITS[self.data.kind]


class Split(NamedTuple):
    """One split: masks and labels at the resolution at which they are compared, and clusters of tokens.

    Attributes:
        dataset: name and classes of the split.
        masks: (n, R, R) bool, foreground by the attention alone.
        labels: (n, R, R) uint8.
        clusters: (n, h, w) int64, cluster ids of the spherical k-means.
    """

    dataset: Dataset
    masks: Tensor
    labels: Tensor
    clusters: Tensor

    def cells(self) -> Tensor:
        """Return the clusters at the resolution of the masks, (n, R, R)."""
        return nearest(self.clusters, self.masks.shape[-1])

    def objects(self) -> Tensor:
        """Return the labels of objects, (n, R, R) uint8, see `object_labels`."""
        return object_labels(self.labels, self.dataset)


def run(config: FullyUnsupervisedConfig, world: World) -> dict[str, Any]:
    """Find and score foreground and communities.

    Returns:
        The input of `hcl.evaluation.report`: under ``results`` the Jaccard index of the attention alone, and
        for each threshold the scores of the foreground that it finds and of the communities in it.

    Raises:
        ValueError: there are fewer tokens than clusters, no cluster is foreground, the classes do not
            separate objects from the rest, or a setting, file or label is invalid.
        FileNotFoundError: data or weights are missing.
        ModuleNotFoundError: Infomap is not installed.
    """
    require_infomap()
    train, val = open_two_splits(config.data, config.training_split, world)
    require_objects(val)
    extractor = open_extractor(config, world)
    require_enough(
        config.extraction_clusters,
        len(train) + len(val),
        extractor.grid(config.frame.size),
        f"{train.name} and {val.name}",
        setting="--extraction_clusters",
    )
    with (
        stored_tokens(config, train, extractor, world) as train_store,
        stored_tokens(config, val, extractor, world) as val_store,
    ):
        stores = (train_store, val_store)
        points = principal_components([store.tokens for store in stores], config.dimensions, world)
        clusters = _cluster_all(points, train_store.grid, config, world).split([len(train), len(val)])
        splits = [
            _at_resolution(dataset, store, found, config, world)
            for dataset, store, found in zip((train, val), stores, clusters, strict=True)
        ]
    described = facts(
        config,
        val,
        extractor,
        label_resolution=config.label_resolution,
        labels_used_for=_labels_used_for(config, train),
    )
    return {
        **described,
        "training_data": images_of(train),
        "results": _results(points, splits, config, world),
    }


def _cluster_all(
    points: Tensor, grid: tuple[int, int], config: FullyUnsupervisedConfig, world: World
) -> Tensor:
    """Cluster all tokens; return the ids (images, h, w) on every rank."""
    share = rows_of(world.slice(len(points)), points.shape[1])
    found = cluster(
        points.flatten(0, 1),
        share,
        config.extraction_clusters,
        config,
        seed=config.seed,
        world=world,
        spherical=True,
    )
    return world.all_gather_rows(found.assignment).view(len(points), *grid)


def _at_resolution(
    dataset: Dataset, store: TokenStore, clusters: Tensor, config: FullyUnsupervisedConfig, world: World
) -> Split:
    side, parts = config.label_resolution, store.attention.split(IMAGES_AT_A_TIME)
    masks = [nearest(foreground_mask(part.to(world.device), config.keep_mass), side) for part in parts]
    labels = [nearest(part.to(world.device), side) for part in store.labels.split(IMAGES_AT_A_TIME)]
    return Split(dataset, torch.cat(masks), torch.cat(labels), clusters)


def _results(
    points: Tensor, splits: Sequence[Split], config: FullyUnsupervisedConfig, world: World
) -> list[dict[str, Any]]:
    results = [{"name": "foreground: attention", **_jaccard(splits[1], splits[1].masks, config, world)}]
    # All thresholds first: one that leaves no foreground is refused before the long part begins.
    for threshold, foreground in _foregrounds(splits, config):
        name = f"{threshold.choice} threshold {threshold.value:.2f}"
        scored = _jaccard(splits[1], nearest(foreground[1], config.label_resolution), config, world)
        facts_of_choice = {"threshold": threshold.value, "threshold_reads_labels": threshold.reads_labels}
        results.append({"name": f"foreground: {name}", **facts_of_choice, **scored})
        maps = foreground_clusters(
            points,
            torch.cat(foreground),
            config.foreground_clusters,
            config.label_resolution,
            config,
            seed=config.seed,
            world=world,
        )
        found = _communities(maps, splits[1], config, world)
        results.append({"name": f"communities: {name}", **facts_of_choice, **found})
    return results


def _foregrounds(
    splits: Sequence[Split], config: FullyUnsupervisedConfig
) -> list[tuple[PrecisionThreshold, list[Tensor]]]:
    """Each threshold, and the foreground (n, h, w) bool that it leaves of each split."""
    sums = [precision_sums(split.cells(), split.masks, config.extraction_clusters) for split in splits]
    thresholds = [_threshold(choice, splits[0], sums[0]) for choice in config.thresholds]
    return [
        (
            threshold,
            [
                threshold.foreground(own.precision)[split.clusters]
                for own, split in zip(sums, splits, strict=True)
            ],
        )
        for threshold in thresholds
    ]


def _threshold(choice: Choice, train: Split, sums: PrecisionSums) -> PrecisionThreshold:
    if choice == "otsu":
        return otsu_threshold(sums)
    return published_threshold(sums.precision, jaccard_sums(train.cells(), train.objects(), sums.precision))


def _jaccard(split: Split, maps: Tensor, config: FullyUnsupervisedConfig, world: World) -> dict[str, Any]:
    """Score foreground maps (n, R, R); each rank counts its share of the images."""
    metric, mine = ForegroundScores().to(world.device), world.slice(len(maps))
    metric.update(maps[mine], split.objects()[mine])
    return over_seeds({config.seed: metric.compute()._asdict()})


def _communities(maps: Tensor, val: Split, config: FullyUnsupervisedConfig, world: World) -> dict[str, Any]:
    """Find communities of both splits' clusters (n, R, R); score them on ``val`` for each Infomap seed."""
    ids = config.foreground_clusters + 1
    matrix = cooccurrence_sums(maps, ids).matrix
    scores, numbers = {}, []
    for seed in progress(world, "communities", "seed", steps=range(1, config.seeds + 1)):
        of_cluster = communities(
            matrix,
            threshold=config.edge_threshold,
            seed=seed,
            markov_time=config.markov_time,
            preferred_modules=config.preferred_modules,
        )
        numbers.append(int(of_cluster.max()) + 1)
        scores[seed] = _score(of_cluster[maps[-len(val.labels) :]], numbers[-1], val, world)
    return {
        "clusters": ids,
        "communities": numbers,
        **summary(scores, val.dataset.class_names, CLUSTERING_SCORES),
    }


def _score(maps: Tensor, found: int, split: Split, world: World) -> Scores:
    """Score maps (n, R, R) of ``found`` communities; each rank counts its share of the images."""
    dataset, mine = split.dataset, world.slice(len(maps))
    metric = ClusteringScores(
        found, len(dataset.class_names), matching="hungarian", ignore_index=dataset.ignore_index
    )
    metric.to(world.device).update(maps[mine], split.labels[mine])
    return metric.compute()


def _labels_used_for(config: FullyUnsupervisedConfig, train: Dataset) -> str:
    published = f"the published threshold, on {train.name}; " if "published" in config.thresholds else ""
    return (
        f"{published}matching communities with classes, on the scored images; choosing the number of "
        "clusters and the settings of the graph (by the method's authors, on PVOC val)"
    )
