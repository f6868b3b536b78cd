"""The fully unsupervised protocol: what its steps are told, and which split and labels each one takes."""

from typing import Any

import pytest
import torch

from hcl.data.dataset import DataConfig
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation import fully_unsupervised
from hcl.evaluation.cluster_foreground import jaccard_sums, precision_sums, published_threshold
from hcl.evaluation.clusters import cluster
from hcl.evaluation.cooccurrence import cooccurrence_sums
from hcl.evaluation.fully_unsupervised import FullyUnsupervisedConfig, Split, _cluster_all, _results
from hcl.evaluation.metrics import CLUSTERING_SCORES, ClusteringScores
from hcl.models.recorded_backbone import BackboneOverride

ALONE = World.alone(torch.device("cpu"))
VOC = DataConfig("voc", "x", "val")
CONFIG = FullyUnsupervisedConfig(
    **{"data": VOC, "backbone": BackboneOverride("tiny"), "seed": 4, "seeds": 2, "label_resolution": 8},
    **{"extraction_clusters": 8, "community_clusters": 3, "restarts": 1, "iterations": 5},
    **{"thresholds": ["published"], "edge_threshold": 0.2, "markov_time": 1.5, "preferred_modules": 2},
)


def drawn(*shape: int, below: int, seed: int) -> torch.Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def split(images: int, seed: int) -> Split:
    """Maps of 8 clusters, each inside of the attention as often as its id says; some labels are ignored."""
    clusters = drawn(images, 4, 4, below=8, seed=seed)
    cells = clusters.repeat_interleave(2, 1).repeat_interleave(2, 2)
    masks = drawn(images, 8, 8, below=8, seed=seed + 1) <= (cells + seed) % 8
    labels = drawn(images, 8, 8, below=4, seed=seed + 2)
    labels = labels.where(labels < 3, 7).to(torch.uint8)
    dataset = Dataset(f"split {seed}", [None] * images, ("a", "b", "c"), 7, object_classes=(1, 2))
    return Split(dataset, masks, labels, clusters)


def test_communities_of_both_splits_are_scored_on_the_second(monkeypatch):
    train, val = split(2, seed=3), split(3, seed=30)
    points, maps = torch.rand(5, 16, 3), drawn(5, 8, 8, below=4, seed=7)
    of_cluster, told = torch.tensor([0, 1, 0, 1]), []

    def clustered(*arguments: Any, **settings: Any) -> torch.Tensor:
        told.append((arguments, settings))
        return maps

    def joined(matrix: torch.Tensor, **settings: Any) -> torch.Tensor:
        told.append((matrix, settings))
        return of_cluster

    monkeypatch.setattr(fully_unsupervised, "foreground_clusters", clustered)
    monkeypatch.setattr(fully_unsupervised, "communities", joined)
    *_, result = _results(points, [train, val], CONFIG, ALONE)

    own, other = (precision_sums(one.cells(), one.masks, 8).precision for one in (train, val))
    threshold = published_threshold(own, jaccard_sums(train.cells(), train.objects(), own))
    assert threshold != published_threshold(other, jaccard_sums(val.cells(), val.objects(), other))
    foreground = [threshold.foreground(own)[train.clusters], threshold.foreground(other)[val.clusters]]
    (given, settings), *graphs = told
    assert given[0] is points
    assert torch.equal(given[1], torch.cat(foreground))
    assert (*given[2:], settings) == (3, 8, CONFIG, {"seed": 4, "world": ALONE})
    expected = {"threshold": 0.2, "markov_time": 1.5, "preferred_modules": 2}
    assert [settings for _, settings in graphs] == [{**expected, "seed": seed} for seed in (1, 2)]
    assert all(torch.equal(matrix, cooccurrence_sums(maps, 4).matrix) for matrix, _ in graphs)

    metric = ClusteringScores(2, 3, matching="hungarian", ignore_index=7)
    metric.update(of_cluster[maps[2:]], val.labels)
    scores = metric.compute()
    assert result["confusion"] == (2 * scores.confusion).tolist()
    assert result["mean"] == scores.numbers(CLUSTERING_SCORES)
    assert (result["clusters"], result["communities"]) == (4, [2, 2])
    assert result["threshold"] == threshold.value


def test_the_foregrounds_clusters_are_those_of_directions():
    points = torch.randn(5, 16, 3, generator=torch.Generator().manual_seed(0))
    points *= torch.logspace(-2, 2, 80).view(5, 16, 1)
    expected = cluster(points.flatten(0, 1), slice(None), 8, CONFIG, seed=4, world=ALONE, spherical=True)
    assert torch.equal(_cluster_all(points, (4, 4), CONFIG, ALONE).flatten(), expected.assignment)


@pytest.mark.parametrize(
    ("backbone", "clusters"), [("dino_vits16", 189), ("dino_vitb8", 179), ("dinov2_vits14", 189)]
)
def test_the_number_of_clusters_follows_from_the_patch_size(backbone, clusters):
    config = FullyUnsupervisedConfig(data=VOC, backbone=BackboneOverride(backbone))
    assert config.foreground_clusters == clusters


@pytest.mark.parametrize(
    ("kind", "train"), [("voc", "train"), ("coco", "Coco164kFull_Stuff_Coarse"), ("scenes", "train")]
)
def test_the_kind_of_data_sets_the_split_that_is_clustered_too(kind, train):
    data = DataConfig(kind, "x", "val2017")
    assert FullyUnsupervisedConfig(data=data).training_split == train
    assert FullyUnsupervisedConfig(data=data, train_split="other").training_split == "other"
