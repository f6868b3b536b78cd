"""What is trained, and what trains it, are as the settings say."""

import pytest
import torch

from hcl.data.dataset import DataConfig
from hcl.engine.config import MAY_CHANGE_ON_RESUME, OptimiserConfig, TrainConfig
from hcl.engine.learner import Learner
from hcl.models.backbones import BackboneConfig
from hcl.models.seg_head import SegHeadConfig
from tests.engine.support import ALONE

SMALL = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=2)


def learner(**settings) -> Learner:
    data, backbone = DataConfig("folder", "x"), BackboneConfig("tiny")
    config = TrainConfig(data=data, backbone=backbone, head=SMALL, cuda_graphs=False, **settings)
    return Learner(config, ALONE)


def test_the_optimiser_and_its_schedule_are_those_that_are_asked_for():
    settings = OptimiserConfig(lr=0.3, weight_decay=0.2, milestones=[1, 3], gamma=0.5)
    made = learner(optimiser=settings)
    (group,) = made.optimizer.param_groups
    assert isinstance(made.optimizer, torch.optim.AdamW)
    assert (group["weight_decay"], group["betas"]) == (0.2, (0.9, 0.999))
    assert set(map(id, group["params"])) == set(map(id, made.model.online.parameters()))
    rates = []
    for _ in range(5):
        rates.append(made.lr)
        made.optimizer.step()
        made.schedule.step()
    assert rates == pytest.approx([0.3, 0.15, 0.15, 0.075, 0.075])


def test_the_seed_draws_the_heads_and_nothing_else_does():
    weights = []
    for seed in (1, 1, 2):
        torch.rand(1)
        weights.append(learner(seed=seed).model.online.state_dict())
    first, again, other = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["predictor.0.weight"], other["predictor.0.weight"])


def test_clusters_and_the_step_are_told_what_they_need():
    made = learner(seed=5, on_non_finite="skip", precision="bf16")
    assert made.clustering.seed == 5
    assert (made.training_step.halt, made.training_step.precision) == (False, "bf16")
    assert learner().training_step.halt


@pytest.mark.parametrize("setting", ["seed", "precision", "batch_size", "data.split", "loss.temperature"])
def test_what_decides_what_is_learnt_may_not_change_on_resume(setting):
    assert setting not in MAY_CHANGE_ON_RESUME
