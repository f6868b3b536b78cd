"""Fifty steps: the loss goes the same way whichever implementation computes it."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from benchmarks import published
from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.distributed import World
from hcl.engine.step import LossConfig, TrainingStep
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.hcl import HCL
from hcl.models.seg_head import SegHeadConfig
from hcl.precision import forbid_tf32
from kernels import aggregate, fba, foreground
from kernels.kmeans import operations

pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
STEPS = 50
# On Triton's interpreter a step takes seconds. All fifty have been compared there too.
FUSED_STEPS = STEPS if DEVICE.type == "cuda" else 4
Views = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def model() -> HCL:
    forbid_tf32()
    torch.manual_seed(0)
    head = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=2)
    return HCL(build_backbone(BackboneConfig("tiny")), head).to(DEVICE)


@pytest.fixture
def centroids() -> Centroids:
    foreground, background = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    return Centroids(foreground, background)


def views(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two noisy views of the same two of eight pictures."""
    pictures = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    chosen = pictures[[step % 8, (3 * step + 1) % 8]].repeat_interleave(8, 2).repeat_interleave(8, 3)
    noise = torch.randn(2, *chosen.shape, generator=torch.Generator().manual_seed(100 + step))
    first, second = (chosen + 0.3 * noise).to(DEVICE)
    return first, second


def curve(model: HCL, centroids: Centroids, mode: str, steps: int = STEPS) -> torch.Tensor:
    """Losses (steps, 4) of this project's step."""
    model = deepcopy(model)
    world = World.alone(DEVICE)
    clustering = MoGoClustering(ClusteringConfig(mode=mode), seed=7, world=world)
    clustering.centroids = centroids
    clustering._idle = tuple(torch.zeros(5, dtype=torch.int64, device=DEVICE) for _ in range(2))
    optimizer = torch.optim.AdamW(model.online.parameters(), lr=1e-3, weight_decay=0.04, fused=True)
    step = TrainingStep(model, optimizer, clustering, LossConfig(), world=world)
    return torch.stack([torch.stack(step([views(number)]).losses) for number in range(steps)]).cpu()


def test_the_published_step_goes_the_same_way(model, centroids):
    plain = published.plain(model)
    optimizer = torch.optim.AdamW(plain.online.parameters(), lr=1e-3, weight_decay=0.04)
    theirs = [
        torch.stack(published.training_step(plain, optimizer, views(number), centroids))
        for number in range(STEPS)
    ]
    ours = curve(model, centroids, "epoch")
    torch.testing.assert_close(ours, torch.stack(theirs).cpu(), atol=1e-4, rtol=0)
    assert ours[-8:, 0].mean() < 0.9 * ours[:8, 0].mean()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_the_fused_operations_go_the_way_of_their_references(model, centroids, monkeypatch, mode):
    def by(form: str) -> torch.Tensor:
        for owner in (aggregate, fba, foreground, operations):
            monkeypatch.setattr(owner, "choose", lambda *_, **__: form)
        return curve(model, centroids, mode, FUSED_STEPS)

    reference, fused = by("torch"), by("triton")
    assert not torch.equal(fused, reference)
    torch.testing.assert_close(fused, reference, atol=1e-4, rtol=0)
