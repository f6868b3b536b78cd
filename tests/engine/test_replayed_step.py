from types import SimpleNamespace

import pytest
import torch

from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.distributed import World
from hcl.engine import replayed_step
from hcl.engine.replayed_step import ReplayedStep
from hcl.engine.step import LossConfig, TrainingStep
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.hcl import HCL
from hcl.models.seg_head import SegHeadConfig


def stand_in(device: str = "cuda", mode: str = "epoch", size: int = 1) -> SimpleNamespace:
    """What a `TrainingStep` is asked, and a note of its calls."""
    taken: list[object] = []

    class Step(SimpleNamespace):
        def __call__(self, views):
            taken.append(views)
            return "taken"

    clustering = SimpleNamespace(
        config=SimpleNamespace(mode=mode), centroids=Centroids(*torch.zeros(2, 3, 4))
    )
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
    world = SimpleNamespace(size=size, device=torch.device(device))
    return Step(world=world, clustering=clustering, optimizer=optimizer, taken=taken)


@pytest.fixture
def recorded(monkeypatch) -> list:
    """The graphs that are made; each records a call of the step and answers "replayed"."""
    graphs = []

    def record(function, *tensors):
        function(*tensors)
        graphs.append(tensors)
        return lambda *tensors: "replayed"

    monkeypatch.setattr(replayed_step, "Graph", record)
    return graphs


def views(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(2, 3, size, size), torch.ones(2, 3, size, size)


def test_a_step_is_recorded_when_it_comes_again_as_it_was(recorded):
    step = ReplayedStep(stand_in())
    assert [step([views()]) for _ in range(4)] == ["taken", "replayed", "replayed", "replayed"]
    assert len(recorded) == 1


@pytest.mark.parametrize("change", ["views", "learning rate", "centroids"])
def test_what_is_recorded_is_taken_anew_when_it_has_changed(recorded, change):
    plain = stand_in()
    step = ReplayedStep(plain)
    given = views()
    assert [step([given]) for _ in range(2)] == ["taken", "replayed"]
    if change == "views":
        given = views(16)
    elif change == "learning rate":
        plain.optimizer.param_groups[0]["lr"] = 0.01
    else:
        plain.clustering.centroids = Centroids(*torch.zeros(2, 5, 4))
    assert [step([given]) for _ in range(3)] == ["taken", "replayed", "replayed"]


def test_new_centroids_come_to_where_the_recorded_ones_lie(recorded):
    plain = stand_in()
    step = ReplayedStep(plain)
    assert [step([views()]) for _ in range(2)] == ["taken", "replayed"]
    place = plain.clustering.centroids
    plain.clustering.centroids = Centroids(*torch.ones(2, 3, 4))
    assert step([views()]) == "replayed"
    assert plain.clustering.centroids is place
    assert all(side.eq(1).all() for side in place)


@pytest.mark.parametrize("other", [{"device": "cpu"}, {"mode": "online"}, {"size": 2}])
def test_other_steps_are_taken_as_they_are(recorded, other):
    step = ReplayedStep(stand_in(**other))
    assert [step([views()]) for _ in range(3)] == ["taken"] * 3
    assert recorded == []


def test_micro_batches_are_taken_as_they_are(recorded):
    step = ReplayedStep(stand_in())
    assert [step([views(), views()]) for _ in range(3)] == ["taken"] * 3


def learner(precision: str) -> TrainingStep:
    torch.manual_seed(0)
    head = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=2)
    model, world = HCL(build_backbone(BackboneConfig("tiny")), head).cuda(), World.alone(torch.device("cuda"))
    clustering = MoGoClustering(ClusteringConfig(), seed=7, world=world)
    clustering.centroids = Centroids(*torch.randn(2, 5, 8, device="cuda").unbind())
    optimizer = torch.optim.AdamW(model.online.parameters(), lr=1e-3, fused=True, capturable=True)
    return TrainingStep(model, optimizer, clustering, LossConfig(), world=world, precision=precision)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_learn_what_steps_learn(precision):
    """Over a new clustering, another learning rate and a loss that is not finite."""
    plain, again = learner(precision), learner(precision)
    again.model.load_state_dict(plain.model.state_dict())
    again.clustering.centroids = plain.clustering.centroids
    replayed = ReplayedStep(again)
    draws = torch.Generator().manual_seed(1)
    for number in range(12):
        if number == 4:
            centroids = torch.randn(2, 5, 8, generator=draws).cuda().unbind()
            plain.clustering.centroids = again.clustering.centroids = Centroids(*centroids)
        if number == 7:
            for step in (plain, again):
                step.optimizer.param_groups[0]["lr"] = 1e-4
        first, second = torch.randn(2, 2, 3, 64, 64, generator=draws).cuda()
        if number == 10:
            first = first * torch.inf
        expected, found = plain([(first, second)]), replayed([(first, second)])
        torch.testing.assert_close(
            found.losses.total, expected.losses.total, equal_nan=True, rtol=1e-4, atol=0
        )
        assert found.applied == expected.applied == (number < 10)
    assert replayed.halted
    for one, other in zip(plain.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
