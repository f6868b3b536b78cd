"""Cluster precisions as published, and both ways of choosing the threshold against plain loops."""

import numpy as np
import pytest
import torch

from hcl.evaluation import cluster_foreground
from hcl.evaluation.cluster_foreground import (
    PrecisionSums,
    PrecisionThreshold,
    jaccard_sums,
    otsu_threshold,
    precision_sums,
    published_threshold,
)


@pytest.fixture
def maps(golden) -> tuple[torch.Tensor, torch.Tensor]:
    vectors = golden("fully_unsupervised")
    return torch.from_numpy(vectors["cluster_maps"]), torch.from_numpy(vectors["mask"]).bool()


def sums(precision: list[float], cells: list[int]) -> PrecisionSums:
    images = torch.tensor(cells).clamp(max=1)
    return PrecisionSums(torch.tensor(precision, dtype=torch.float64), images, torch.tensor(cells))


@pytest.mark.parametrize("images_at_a_time", [1, 4, 64])
def test_precisions_are_those_of_the_published_program(golden, maps, monkeypatch, images_at_a_time):
    monkeypatch.setattr(cluster_foreground, "IMAGES_AT_A_TIME", images_at_a_time)
    found = precision_sums(*maps, 12)
    expected = golden("fully_unsupervised")["cluster_precision"]
    np.testing.assert_allclose(found.precision.numpy(), expected, atol=1e-6, rtol=0)
    assert torch.equal(found.cells, maps[0].flatten().long().bincount())


def test_the_mean_runs_over_the_images_with_the_cluster():
    cluster_maps = torch.tensor([[[0, 0], [0, 1]], [[1, 1], [1, 1]]])
    masks = torch.tensor([[[1, 0], [0, 1]], [[1, 0], [0, 0]]]).bool()
    found = precision_sums(cluster_maps, masks, 3)
    assert found.precision.tolist() == pytest.approx([1 / 3, (1 + 1 / 4) / 2, 0])
    assert found.images.tolist() == [1, 2, 0]


def test_shards_add_up_to_the_whole(maps):
    whole = precision_sums(*maps, 12)
    shards = [precision_sums(*(x[part] for x in maps), 12) for part in (slice(2), slice(2, 2), slice(2, 6))]
    for total, parts in zip(whole, zip(*shards, strict=True), strict=True):
        torch.testing.assert_close(sum(parts), total, rtol=1e-14, atol=0)


def test_bad_maps_are_refused(maps):
    with pytest.raises(ValueError, match="ids range from 0 to 11; they must lie between 0 and 10"):
        precision_sums(*maps, 11)
    with pytest.raises(ValueError, match=r"\(6, 25, 25\) and \(6, 25\)"):
        precision_sums(maps[0], maps[1][0:, 0], 12)


def brute_jaccards(cluster_maps: torch.Tensor, objects: torch.Tensor, precision: torch.Tensor) -> list[float]:
    order = np.argsort(precision.numpy(), kind="stable")
    totals = []
    for background in range(len(order)):
        total = 0.0
        for cells, labels in zip(cluster_maps.numpy(), objects.numpy(), strict=True):
            foreground, of_objects = np.isin(cells, order[background:]), labels > 0
            total += (foreground & of_objects).sum() / max(1, (foreground | of_objects).sum())
        totals.append(total)
    return totals


@pytest.mark.parametrize("images_at_a_time", [5, 64])
def test_jaccards_of_all_foregrounds_are_those_of_a_loop(maps, monkeypatch, images_at_a_time):
    monkeypatch.setattr(cluster_foreground, "IMAGES_AT_A_TIME", images_at_a_time)
    objects = torch.from_numpy(np.random.default_rng(0).integers(3, size=maps[0].shape, dtype=np.uint8))
    objects[2] = 0
    objects[3] = 255
    precision = precision_sums(*maps, 12).precision
    precision[4] = precision[7]
    found = jaccard_sums(maps[0], objects, precision)
    np.testing.assert_allclose(found.numpy(), brute_jaccards(maps[0], objects, precision))
    halves = [jaccard_sums(maps[0][part], objects[part], precision) for part in (slice(4), slice(4, 6))]
    torch.testing.assert_close(halves[0] + halves[1], found)


def test_the_published_threshold_leaves_55_to_75_per_cent_as_background():
    precision = torch.linspace(0.9, 0, 20, dtype=torch.float64)
    ascending = precision.sort().values
    jaccards = torch.zeros(20, dtype=torch.float64)
    jaccards[[3, 15, 18]] = 1
    jaccards[[11, 13]] = 0.5
    chosen = published_threshold(precision, jaccards)
    assert chosen.value == pytest.approx(round(float(ascending[13]) * 20) / 20) == pytest.approx(0.6)
    assert (chosen.choice, chosen.reads_labels) == ("published", True)
    jaccards[[11, 14]] = torch.tensor([0.6, 0.4], dtype=torch.float64)
    assert published_threshold(precision, jaccards).value == pytest.approx(0.5)
    jaccards[14] = 0.7
    assert published_threshold(precision, jaccards).value == pytest.approx(
        round(float(ascending[14]) * 20) / 20
    )


def test_the_published_threshold_looks_at_no_other_foregrounds():
    """Of 20 clusters 11 to 14 may be background."""
    precision, jaccards = torch.linspace(0, 0.95, 20, dtype=torch.float64), torch.zeros(20)
    jaccards[[10, 15]], jaccards[13] = 1, 0.5
    assert published_threshold(precision, jaccards).value == pytest.approx(0.65)


def test_the_published_threshold_is_below_1():
    precision = torch.linspace(0.98, 1, 20, dtype=torch.float64)
    assert published_threshold(precision, torch.zeros(20)).value == pytest.approx(0.95)


def test_a_published_threshold_above_every_precision_is_refused():
    with pytest.raises(ValueError, match=r"no cluster reaches the precision 0\.300; the highest is 0\.290"):
        published_threshold(torch.tensor([0.1, 0.28, 0.29]), torch.tensor([0.0, 1.0, 2.0]))


def test_clusters_at_the_threshold_are_foreground():
    chosen = PrecisionThreshold(0.4, "otsu", reads_labels=False)
    assert chosen.foreground(torch.tensor([0.5, 0.39, 0.4], dtype=torch.float64)).tolist() == [
        True,
        False,
        True,
    ]


def brute_otsu(precision: np.ndarray, cells: np.ndarray) -> float:
    """The greatest variance between two parts that a cut between two precisions gives, cell by cell."""
    values = np.repeat(precision, cells)
    cuts = np.unique(values)
    halfway = (cuts[1:] + cuts[:-1]) / 2
    parts = [(values[values < cut], values[values >= cut]) for cut in halfway]
    variances = [len(low) * len(high) * (high.mean() - low.mean()) ** 2 for low, high in parts]
    return halfway[np.argmax(variances)]


@pytest.mark.parametrize("seed", range(5))
def test_otsu_parts_cells_where_a_loop_does(seed):
    rng = np.random.default_rng(seed)
    precision = rng.integers(12, size=15) / 12
    cells = rng.integers(50, size=15)
    found = otsu_threshold(sums((precision * (cells > 0)).tolist(), cells.tolist()))
    assert found.value == pytest.approx(brute_otsu(precision, cells))
    assert (found.choice, found.reads_labels) == ("otsu", False)


def test_otsu_weighs_clusters_by_their_cells():
    precision = [0.1, 0.2, 0.5, 0.9]
    assert otsu_threshold(sums(precision, [100, 100, 1, 100])).value == pytest.approx(0.7)
    assert otsu_threshold(sums(precision, [100, 1, 100, 1])).value == pytest.approx(0.35)


@pytest.mark.parametrize("precision", [[0.0, 0.0, 0.0], [0.4, 0.4, 0.0]])
def test_equal_precisions_cannot_be_parted(precision):
    with pytest.raises(ValueError, match="every cluster has the same precision"):
        otsu_threshold(sums(precision, [5, 5, 0]))
