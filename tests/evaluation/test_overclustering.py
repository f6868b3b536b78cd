"""Clusters from stored tokens to scores, on tokens whose clusters are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hcl.data.dataset import DataConfig
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation import overclustering
from hcl.evaluation.clusters import cluster
from hcl.evaluation.overclustering import ClassClusteringConfig, OverclusteringConfig, score
from hcl.evaluation.resolution import nearest
from hcl.evaluation.token_store import TokenStore

ALONE = World.alone(torch.device("cpu"))
VOC = DataConfig("voc", "x", "val")


def config(**settings) -> OverclusteringConfig:
    return OverclusteringConfig(data=VOC, **{"size": 64, "label_resolution": 8, "restarts": 2, **settings})


def known_store(images: int = 5, classes: int = 3) -> TokenStore:
    """Tokens that have the colour of their class, nearly."""
    rng = np.random.default_rng(0)
    of_cells = torch.from_numpy(rng.integers(classes, size=(images, 4, 4)))
    labels = of_cells.repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8)
    tokens = F.one_hot(of_cells.flatten(1), 3) + 0.01 * torch.from_numpy(rng.normal(size=(images, 16, 3)))
    return TokenStore(tokens.bfloat16(), torch.rand(images, 2, 4, 4), labels, (4, 4))


def scored(store: TokenStore, settings: OverclusteringConfig, clusters: int) -> dict:
    dataset = Dataset("d", [None] * len(store), ("a", "b", "c"))
    return score(store.tokens.float(), store, clusters, dataset, settings, ALONE)


@pytest.mark.parametrize("sizes", [(28, 100), (32, 100), (14, 100), (448, 100), (320, 100), (7, 5)])
def test_nearest_takes_the_cells_that_torch_takes(sizes):
    side, size = sizes
    maps = torch.arange(side * side).view(1, side, side)
    expected = F.interpolate(maps[None].double(), size=(size, size), mode="nearest")[0].long()
    assert torch.equal(nearest(maps, size), expected)


@pytest.mark.parametrize(("clusters", "matching"), [(3, "hungarian"), (3, "precision"), (6, "precision")])
def test_tokens_that_tell_the_classes_apart_score_one(clusters, matching):
    settings = config(matching=matching, seeds=2, init="k-means++")
    result = scored(known_store(), settings, clusters)
    assert (result["name"], result["clusters"]) == (f"K = {clusters}", clusters)
    assert result["mean"]["miou"] == 1
    assert result["std"]["miou"] == 0
    assert [seed["seed"] for seed in result["seeds"]] == [0, 1]
    assert result["class_iou"] == {"a": 1, "b": 1, "c": 1}


def test_an_absent_class_is_named():
    result = scored(known_store(classes=2), config(seeds=1, init="k-means++"), 2)
    assert result["absent_classes"] == ["c"]
    assert result["mean"]["miou"] == pytest.approx(2 / 3)
    assert result["mean"]["miou_present"] == 1


def test_the_number_of_clusters_follows_from_the_protocol():
    assert config().cluster_numbers(21) == [500]
    assert config(clusters=[21, 100]).cluster_numbers(21) == [21, 100]
    assert ClassClusteringConfig(data=VOC).cluster_numbers(21) == [21]
    assert ClassClusteringConfig(data=VOC).matching == "hungarian"
    coco = DataConfig("coco", "x", "val2017")
    assert ClassClusteringConfig(data=coco).frame == (320, "shorter-crop")
    assert OverclusteringConfig(data=coco).frame == (448, "resize")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"clusters": 0}, "clusters is 0"),
        ({"clusters": []}, r"clusters is \[\]"),
        ({"seeds": 0}, "seeds is 0"),
        ({"label_resolution": 0}, "label_resolution is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"size": 0}, "size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"tokens": "pmvit", "checkpoint": "head.pt"}, "head.pt holds a head"),
        ({"data": DataConfig("folder", "x")}, "no labels to score against"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        OverclusteringConfig(**{"data": VOC, **setting})


def test_every_seed_draws_starts_of_its_own(monkeypatch):
    drawn = []

    def noted(*arguments, seed: int, world: World):
        drawn.append(seed)
        return cluster(*arguments, seed=seed, world=world)

    monkeypatch.setattr(overclustering, "cluster", noted)
    scored(known_store(), config(seeds=3), 3)
    assert drawn == [0, 1, 2]


def test_the_ignore_index_is_the_data_sets():
    store = known_store()
    store.labels[1:3] = 7
    dataset = Dataset("d", [None] * len(store), ("a", "b", "c"), ignore_index=7)
    settings = config(seeds=1, init="k-means++")
    found = score(store.tokens.float(), store, 3, dataset, settings, ALONE)
    assert sum(map(sum, found["confusion"])) == 3 * 8 * 8
