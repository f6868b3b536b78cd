"""The foreground protocol: each share of the attention has a map of its own, compared with labelled cells."""

import pytest
import torch

from hcl.data.dataset import DataConfig
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.foreground import ForegroundConfig, score
from hcl.evaluation.foreground_scores import ForegroundScores, object_labels
from hcl.evaluation.resolution import nearest
from hcl.evaluation.token_store import TokenStore
from kernels.foreground import foreground_mask

ALONE = World.alone(torch.device("cpu"))
DATASET = Dataset("d", [None] * 4, ("a", "b", "c"), object_classes=(1, 2))


@pytest.fixture
def store() -> TokenStore:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (4, 32, 32), generator=generator).to(torch.uint8)
    labels[:, :8] = 255
    attention = torch.rand(4, 2, 4, 4, generator=generator)
    return TokenStore(torch.zeros(4, 16, 3).bfloat16(), attention, labels, (4, 4))


def test_every_share_is_scored_by_its_own_map_on_labelled_cells(store):
    config = ForegroundConfig(data=DataConfig("voc", "x", "val"), label_resolution=8, seed=3)
    numbers = []
    for share in (0.3, 0.9):
        result, metric = score(store, share, DATASET, config, ALONE), ForegroundScores()
        maps = nearest(foreground_mask(store.attention, share), 8)
        metric.update(maps, object_labels(nearest(store.labels, 8), DATASET))
        numbers.append(metric.compute()._asdict())
        assert (result["name"], result["keep_mass"]) == (f"attention, θ = {share}", share)
        assert result["seeds"] == [{"seed": 3, **numbers[-1]}]
    assert numbers[0] != numbers[1]


def test_shares_lie_above_0_and_up_to_1():
    data = DataConfig("voc", "x", "val")
    assert ForegroundConfig(data=data, keep_mass=[1.0]).keep_mass == [1.0]
    for shares in ([], [0.0], [0.5, 1.1]):
        with pytest.raises(ValueError, match="keep_mass"):
            ForegroundConfig(data=data, keep_mass=shares)
