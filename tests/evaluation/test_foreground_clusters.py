import pytest
import torch

from hcl.distributed import World
from hcl.evaluation import foreground_clusters as module
from hcl.evaluation.clusters import KMeansConfig
from hcl.evaluation.foreground_clusters import foreground_clusters

ALONE = World.alone(torch.device("cpu"))
FOREGROUND = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [1, 0]]], dtype=torch.bool)
POINTS = torch.tensor([[[0.0], [9.0], [9.0], [5.0]], [[9.0], [9.0], [0.1], [9.0]]])


def maps(resolution: int) -> torch.Tensor:
    config = KMeansConfig(restarts=2, iterations=5)
    return foreground_clusters(POINTS, FOREGROUND, 2, resolution, config, seed=0, world=ALONE)


@pytest.mark.parametrize("resolution", [2, 4])
def test_cells_of_the_foreground_are_clustered_and_the_rest_is_background(resolution):
    found = maps(resolution)[:, :: resolution // 2, :: resolution // 2]
    assert found[~FOREGROUND].eq(2).all()
    assert found[0, 0, 0] == found[1, 1, 0] != found[0, 1, 1]


def test_more_cells_than_memory_are_refused(monkeypatch):
    """At 4x4 there are twelve cells of four bytes."""
    monkeypatch.setattr(module, "free_memory", lambda device: 47)
    maps(2)
    with pytest.raises(ValueError, match="lower --label_resolution or --dimensions"):
        maps(4)
