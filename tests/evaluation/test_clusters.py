"""k-means of the protocols: starts are those of the seed, and the bar counts every step."""

from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F

from benchmarks import overclustering
from hcl.distributed import World
from hcl.evaluation import clusters
from hcl.evaluation.clusters import KMeansConfig, cluster, require_enough
from kernels.kmeans import initial_centroids, kmeans

ALONE = World.alone(torch.device("cpu"))
ROWS = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("init", ["random", "k-means++"])
@pytest.mark.parametrize("spherical", [False, True])
def test_the_best_of_the_seeds_runs_is_taken(init, spherical):
    config = KMeansConfig(iterations=7, restarts=3, init=init)
    found = cluster(ROWS, slice(None), 9, config, seed=4, world=ALONE, spherical=spherical)
    generator = torch.Generator().manual_seed(4)
    runs = []
    for _ in range(3):
        start = initial_centroids(ROWS, 9, init, generator, spherical=spherical)
        runs.append(kmeans(ROWS, 9, iterations=7, init=start, spherical=spherical))
    best = min(runs, key=lambda run: run.inertia)
    assert len({run.inertia for run in runs}) == 3
    assert torch.equal(found.centroids, best.centroids)
    assert torch.equal(found.assignment, best.assignment)


def test_the_length_of_a_row_does_not_change_spherical_clusters():
    lengths = torch.logspace(-3, 3, len(ROWS))[:, None]
    config = KMeansConfig(iterations=7, restarts=1, init="k-means++")
    found, same = (
        cluster(rows, slice(None), 9, config, seed=4, world=ALONE, spherical=True)
        for rows in (F.normalize(ROWS, dim=1), F.normalize(ROWS, dim=1) * lengths)
    )
    assert torch.equal(found.assignment, same.assignment)


def test_the_bar_is_full_when_every_run_took_all_its_steps(monkeypatch):
    bar = MagicMock()
    bar.return_value.__enter__.return_value = bar
    monkeypatch.setattr(clusters, "progress", bar)
    cluster(ROWS, slice(None), 9, KMeansConfig(iterations=2, restarts=3), seed=0, world=ALONE)
    assert bar.update.call_count == bar.call_args.kwargs["total"] == 1 + 3 * (2 + 1)


def test_the_benchmark_measures_what_the_protocol_does():
    pytest.importorskip("faiss")
    options = overclustering.parse(["--clusters", "9", "--restarts", "3", "--iterations", "7"])
    config = KMeansConfig(iterations=7, restarts=3)
    expected = cluster(ROWS, slice(None), 9, config, seed=1, world=ALONE)
    assert torch.equal(overclustering.cluster(ROWS, options, 1, whole=True).centroids, expected.centroids)


def test_every_row_may_be_a_cluster():
    found = cluster(ROWS[:9], slice(None), 9, KMeansConfig(restarts=1), seed=0, world=ALONE)
    assert sorted(found.assignment.tolist()) == list(range(9))
    with pytest.raises(ValueError, match=r"10.* 9"):
        cluster(ROWS[:9], slice(None), 10, KMeansConfig(), seed=0, world=ALONE)


def test_as_many_clusters_as_tokens_are_enough():
    require_enough(24, 2, (3, 4), "shapes", setting="--clusters")
    with pytest.raises(ValueError, match=r"^25 clusters"):
        require_enough(25, 2, (3, 4), "shapes", setting="--clusters")


class Following(World):
    """A rank whose main one tells it of other tensors than its own."""

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.flip(1)


def test_ranks_start_from_the_main_ones_rows():
    """Machines may differ in the last bits of a row."""
    config = KMeansConfig(iterations=2, restarts=1)
    own = initial_centroids(ROWS, 9, "random", torch.Generator().manual_seed(3))
    found = cluster(ROWS, slice(None), 9, config, seed=3, world=Following.alone(torch.device("cpu")))
    assert torch.equal(found.centroids, kmeans(ROWS, 9, init=own.flip(0), iterations=2).centroids)
    assert not torch.equal(found.centroids, kmeans(ROWS, 9, init=own, iterations=2).centroids)
