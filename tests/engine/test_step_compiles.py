"""The step as the compiler and the GPU's queue see it: whole graphs, and no waiting for the host."""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo

from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.clustering.targets import level_targets
from hcl.distributed import World
from hcl.engine.step import LossConfig, TrainingStep
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.hcl import HCL
from hcl.models.seg_head import SegHeadConfig
from kernels.fba import fba_contrastive


def tiny_model(device: str) -> HCL:
    torch.manual_seed(0)
    head = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=2)
    return HCL(build_backbone(BackboneConfig("tiny")), head).to(device)


def breaks(function: Callable, *arguments: object) -> int:
    torch._dynamo.reset()
    return torch._dynamo.explain(function)(*arguments).graph_break_count


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_part_of_the_step_breaks_its_graph(precision):
    model = tiny_model("cpu")
    views = torch.randn(2, 2, 3, 64, 64).unbind()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        online, momentum = model.backbone.pair(views)
        assert breaks(model.backbone.pair, views) == 0
        assert breaks(level_targets, model, momentum, 0.7) == 0
        assert breaks(model.online, online) == 0
        q, _ = model.online(online)
        targets = level_targets(model, momentum, 0.7)
    banks = torch.randn(2, 5, 8).unbind()
    tokens = (q.detach().flatten(0, 1).float(), targets.tokens.flatten(0, 1).float())
    assert breaks(fba_contrastive, *tokens, targets.foreground.flatten(), *banks, 0.07) == 0


def test_a_break_would_be_counted():
    assert breaks(lambda x: x + 1 if x.sum().item() > 0 else x - 1, torch.ones(3)) > 0


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["epoch", "online"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_never_waits_for_the_device(mode, precision):
    model, world = tiny_model("cuda"), World(0, 1, torch.device("cuda"))
    clustering = MoGoClustering(ClusteringConfig(mode=mode), seed=7, ranks=world)
    clustering.centroids = Centroids(*torch.randn(2, 5, 8, device="cuda").unbind())
    clustering._idle = tuple(torch.zeros(5, dtype=torch.int64, device="cuda") for _ in range(2))
    optimizer = torch.optim.AdamW(model.online.parameters(), fused=True)
    step = TrainingStep(model, optimizer, clustering, LossConfig(), world=world, precision=precision)
    views = torch.randn(2, 2, 3, 64, 64, device="cuda").unbind()
    step([views])
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcomes = [step([views]) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(outcome.losses.total.isfinite() for outcome in outcomes)
