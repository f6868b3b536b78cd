"""Overclustering from labelled batches to scores, on tokens whose clusters are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hcl.data.dataset import DataConfig, Dataset
from hcl.evaluation import overclustering
from hcl.evaluation.overclustering import OverclusteringConfig, TokenSet, extract, nearest
from pipelines.labelled_images import LabelledBatch

CPU = torch.device("cpu")


def config(**settings) -> OverclusteringConfig:
    data = DataConfig("voc", "x", "val")
    return OverclusteringConfig(data=data, **{"size": 64, "label_resolution": 8, "restarts": 2, **settings})


class Coordinates:
    """Stands in for an extractor: a token is the mean colour of its patch of 16 x 16 pixels."""

    channels = 3

    def grid(self, size: int) -> tuple[int, int]:
        return size // 16, size // 16

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(images, 16).flatten(2).mT


def labelled_batches(count: int = 5, classes: int = 3) -> list[LabelledBatch]:
    """Images whose patches have the colour of their class, in two batches, the second first."""
    rng = np.random.default_rng(0)
    classes_of_patches = torch.from_numpy(rng.integers(classes, size=(count, 4, 4)))
    labels = classes_of_patches.repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8)
    images = F.one_hot(labels.long(), 3).movedim(-1, 1).float()
    images += 0.01 * torch.from_numpy(rng.normal(size=images.shape)).float()
    parts = [np.arange(3, count), np.arange(3)]
    return [LabelledBatch(images[part], labels[part], part) for part in parts]


@pytest.mark.parametrize("sizes", [(28, 100), (32, 100), (14, 100), (448, 100), (320, 100), (7, 5)])
def test_nearest_takes_the_cells_that_torch_takes(sizes):
    side, size = sizes
    maps = torch.arange(side * side).view(1, side, side)
    expected = F.interpolate(maps[None].double(), size=(size, size), mode="nearest")[0].long()
    assert torch.equal(nearest(maps, size), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tokens_are_stored_in_the_order_of_the_data_set(dtype):
    batches = labelled_batches()
    found = extract(Coordinates(), batches, 5, config(token_dtype=dtype))
    assert found.tokens.shape == (5, 16, 3)
    assert found.tokens.dtype == getattr(torch, dtype)
    assert found.labels.shape == (5, 8, 8)
    assert torch.equal(found.labels[3:], batches[0].labels[:, ::8, ::8])
    expected = F.avg_pool2d(batches[1].images, 16).flatten(2).mT.to(found.tokens.dtype)
    assert torch.equal(found.tokens[:3], expected)


@pytest.mark.parametrize(("clusters", "matching"), [(3, "hungarian"), (3, "precision"), (6, "precision")])
def test_tokens_that_tell_the_classes_apart_score_one(clusters, matching):
    settings = config(clusters=clusters, matching=matching, seeds=2, init="k-means++")
    found = extract(Coordinates(), labelled_batches(), 5, settings)
    dataset = Dataset("d", [None] * 5, ("a", "b", "c"))
    points = found.tokens.flatten(0, 1)
    result = overclustering._score(points, found.labels, found.grid, clusters, dataset, settings)
    assert result["clusters"] == clusters
    assert result["mean"]["miou"] == 1
    assert result["std"]["miou"] == 0
    assert [seed["seed"] for seed in result["seeds"]] == [0, 1]
    assert result["class_iou"] == {"a": 1, "b": 1, "c": 1}


def test_an_absent_class_is_named():
    settings = config(clusters=2, seeds=1, init="k-means++")
    found = extract(Coordinates(), labelled_batches(classes=2), 5, settings)
    dataset = Dataset("d", [None] * 5, ("a", "b", "c"))
    points = found.tokens.flatten(0, 1)
    result = overclustering._score(points, found.labels, found.grid, 2, dataset, settings)
    assert result["absent_classes"] == ["c"]
    assert result["mean"]["miou"] == pytest.approx(2 / 3)
    assert result["mean"]["miou_present"] == 1


def test_token_sets_are_not_copied_whole(monkeypatch):
    found = TokenSet(torch.randn(4, 16, 3), torch.zeros(4, 8, 8, dtype=torch.uint8), (4, 4))
    seen = []
    monkeypatch.setattr(overclustering, "fit_pca", lambda rows, *_: seen.append(rows) or FakePCA())

    class FakePCA:
        def project(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(rows)
            return rows

    overclustering._reduce(found.tokens, 100, CPU)
    assert {rows.data_ptr() for rows in seen} == {found.tokens.data_ptr()}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"clusters": 0}, "clusters is 0"),
        ({"clusters": []}, r"clusters is \[\]"),
        ({"seeds": 0}, "seeds is 0"),
        ({"label_resolution": 0}, "label_resolution is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"tokens": "pmvit", "checkpoint": "head.pt"}, "head.pt holds a head"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        config(**setting)
