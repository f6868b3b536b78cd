import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import published
from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.distributed import World, connect
from hcl.engine.step import LossConfig, TrainingStep
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.hcl import HCL
from hcl.models.seg_head import SegHeadConfig
from tests.engine.support import weights
from tests.ranks import on_ranks


def trained_weights(training) -> dict[str, torch.Tensor]:
    """The weights under the names of the golden vectors."""
    model = training.model
    modules = {
        "final.online_seg_head.": model.online.seg_head,
        "final.momentum_seg_head.": model.momentum,
        "final.predictor.": model.online.predictor,
    }
    return {prefix + name: value for prefix, m in modules.items() for name, value in m.state_dict().items()}


def with_gradient(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Without the keys' third of an attention bias: its gradient is rounding, which Adam makes steps of."""
    if not name.endswith("qkv.bias"):
        return weight
    queries, _, values = weight.chunk(3)
    return torch.cat([queries, values])


def test_four_steps_give_the_published_losses_and_weights(golden_training):
    """Losses to 1e-5; weights as near to exact arithmetic as the published ones are, and 1e-5.

    Exact arithmetic is the same steps in float64. Where Adam amplified rounding, ours and the published
    program's may lie on different sides of it.
    """
    training, exact = golden_training(), golden_training(torch.float64)
    for number, expected in enumerate(training.vectors["losses"]):
        losses = training.step([training.views(number)]).losses
        np.testing.assert_allclose(torch.stack(losses), expected, atol=1e-5, rtol=0)
        exact.step([exact.views(number)])
    published_weights = weights(training.vectors, "final.")
    truth = trained_weights(exact)
    for name, value in trained_weights(training).items():
        stored = published_weights.pop(name.removeprefix("final."))
        rounding = (stored - truth[name]).abs()
        excess = (value - truth[name]).abs() - 1e-5 - rounding
        assert with_gradient(name, excess).max() <= 0, name
        assert with_gradient(name, rounding).max() < 1e-4, name
    assert not published_weights


def test_the_published_algorithm_gives_the_same_losses(golden_training):
    vectors, model, step, views = golden_training()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    ours = [torch.stack(step([views(number)]).losses) for number in range(3)]

    model.load_state_dict(start)
    optimizer = torch.optim.AdamW(
        model.online.parameters(), lr=float(vectors["lr"]), weight_decay=float(vectors["weight_decay"])
    )
    theirs = [
        torch.stack(
            published.training_step(
                model,
                optimizer,
                views(number),
                step.clustering.centroids,
                temperature=float(vectors["temperature"]),
                momentum=float(vectors["momentum"]),
            )
        )
        for number in range(3)
    ]
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), atol=1e-5, rtol=0)


def test_accumulation_changes_no_loss_and_no_gradient(golden_training):
    whole, parts = golden_training(), golden_training()
    first, second = whole.views(0)
    losses = [
        torch.stack(whole.step([(first, second)]).losses),
        torch.stack(parts.step([(first[:1], second[:1]), (first[1:], second[1:])]).losses),
    ]
    torch.testing.assert_close(*losses, atol=1e-6, rtol=0)
    pairs = zip(whole.model.online.parameters(), parts.model.online.parameters(), strict=True)
    for one, two in pairs:
        torch.testing.assert_close(one.grad, two.grad, atol=1e-6, rtol=0)


def test_only_the_online_branch_gets_gradients(golden_training):
    _, model, step, views = golden_training()
    step([views(0)])
    assert all(parameter.grad is not None for parameter in model.online.parameters())
    assert all(parameter.grad is None for parameter in model.momentum.parameters())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def test_online_clustering_moves_the_centroids_towards_the_batch(golden_training):
    _, _, step, views = golden_training()
    clustering = step.clustering
    clustering.config = dataclasses.replace(clustering.config, mode="online", centroid_momentum=0.5)
    clustering._idle = tuple(torch.zeros(len(c), dtype=torch.int64) for c in clustering.centroids)
    before = clustering.centroids
    step([views(0)])
    used = clustering._idle[0] == 0
    assert used.any()
    moved = (clustering.centroids.foreground - before.foreground).norm(dim=1) > 1e-4
    assert torch.equal(moved, used)


@pytest.mark.parametrize("view", [0, 1])
def test_a_nan_in_an_image_reaches_the_loss(golden_training, view):
    _, _, step, views = golden_training()
    pair = views(0)
    pair[view][0, 0, 5, 5] = torch.nan
    assert not torch.isfinite(step([pair]).losses.total)


@pytest.mark.parametrize("halt", [True, False])
def test_nothing_moves_after_a_step_that_halts(golden_training, halt):
    training = golden_training()
    training.step.halt = halt
    spoilt = training.views(0)
    spoilt[0][0, 0, 5, 5] = torch.nan
    assert not training.step([spoilt]).applied
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    outcome = training.step([training.views(1)])
    assert torch.isfinite(outcome.losses.total)
    assert outcome.applied == (not halt)
    after = training.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before) == halt


def small_step(world: World) -> TrainingStep:
    torch.manual_seed(0)
    head = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=2)
    model = HCL(build_backbone(BackboneConfig("tiny")), head)
    clustering = MoGoClustering(ClusteringConfig(), seed=7, world=world)
    clustering.centroids = Centroids(*torch.randn(2, 5, 8).unbind())
    optimizer = torch.optim.AdamW(model.online.parameters(), lr=1e-3, fused=True)
    return TrainingStep(model, optimizer, clustering, LossConfig(), world=world)


def _compare_gradients() -> None:
    """What each of two ranks does: its half of four images, one at a time, and by itself all four at once."""
    with connect("cpu") as world:
        first, second = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        together, alone = small_step(world), small_step(World.alone(world.device))
        mine = range(4)[world.slice(4)]
        losses = together([(first[i : i + 1], second[i : i + 1]) for i in mine]).losses
        torch.testing.assert_close(losses, alone([(first, second)]).losses, atol=1e-6, rtol=0)
        pairs = zip(together.model.online.parameters(), alone.model.online.parameters(), strict=True)
        for ours, whole in pairs:
            torch.testing.assert_close(ours.grad, whole.grad, atol=1e-6, rtol=1e-4)


def test_ranks_and_micro_batches_have_the_gradients_of_the_whole_batch():
    on_ranks(2, _compare_gradients)
