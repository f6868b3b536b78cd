import pytest
import torch

from hcl.distributed import World
from hcl.evaluation.clusters import KMeansConfig
from hcl.evaluation.foreground_clusters import foreground_clusters
from hcl.evaluation.resolution import nearest

ALONE = World.alone(torch.device("cpu"))
CONFIG = KMeansConfig(restarts=2, iterations=5)
FOREGROUND = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [1, 0]]], dtype=torch.bool)
POINTS = torch.tensor([[[0.0], [9.0], [9.0], [5.0]], [[9.0], [9.0], [0.1], [9.0]]])


@pytest.mark.parametrize("resolution", [2, 4])
def test_cells_of_the_foreground_are_clustered_and_the_rest_is_background(resolution):
    found = foreground_clusters(POINTS, FOREGROUND, 2, resolution, CONFIG, seed=0, world=ALONE)
    assert found.shape == (2, resolution, resolution)
    found = found[:, :: resolution // 2, :: resolution // 2]
    assert found[~FOREGROUND].eq(2).all()
    assert found[0, 0, 0] == found[1, 1, 0] != found[0, 1, 1]


@pytest.mark.parametrize("resolution", [5, 7, 2])
def test_a_point_counts_as_often_as_it_has_cells(resolution):
    """Every cell is nearest to the mean of its cluster's cells, where those of points would differ."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20, 9, 2, generator=generator)
    foreground = torch.rand(20, 3, 3, generator=generator) < 0.7
    config = KMeansConfig(restarts=1, iterations=100)
    found = foreground_clusters(points, foreground, 12, resolution, config, seed=0, world=ALONE)
    inside = nearest(foreground, resolution)
    assert torch.equal(found < 12, inside)
    places = nearest(torch.arange(20 * 9).view(20, 3, 3), resolution)[inside]
    cells, ids = points.flatten(0, 1)[places], found[inside]
    means = torch.stack([cells[ids == cluster].mean(dim=0) for cluster in range(12)])
    assert torch.equal(torch.cdist(cells, means).argmin(dim=1), ids)


def test_points_without_a_cell_are_not_clustered():
    """At 1x1 a map holds the first point alone."""
    with pytest.raises(ValueError, match="cannot form 2 clusters from 1 tokens"):
        foreground_clusters(POINTS, FOREGROUND, 2, 1, CONFIG, seed=0, world=ALONE)


def test_the_seed_draws_the_clusters():
    generator = torch.Generator().manual_seed(0)
    points, foreground = torch.rand(20, 9, 2, generator=generator), torch.ones(20, 3, 3, dtype=torch.bool)
    config = KMeansConfig(restarts=1, iterations=2)
    first, again, other = (
        foreground_clusters(points, foreground, 12, 3, config, seed=seed, world=ALONE) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
