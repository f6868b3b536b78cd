"""The step as the compiler and the GPU's queue see it: whole graphs, and no waiting for the host."""

from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch
import torch._dynamo
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.distributed import World
from hcl.engine.step import LossConfig, TrainingStep
from hcl.engine.targets import level_targets
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.hcl import HCL
from hcl.models.seg_head import SegHeadConfig
from kernels.fba import fba_contrastive


def tiny_model(device: str) -> HCL:
    torch.manual_seed(0)
    head = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=2)
    return HCL(build_backbone(BackboneConfig("tiny")), head).to(device)


def breaks(function: Callable, *arguments: object) -> int:
    """Graph breaks of a function that returns tensors alone: torch 2.11 builds no named tuples in a frame."""
    torch._dynamo.reset()
    tensors = torch._dynamo.explain(lambda *given: tree_leaves(function(*given)))
    return tensors(*arguments).graph_break_count


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


class NoAnswer(TorchDispatchMode):
    """Refuses what a GPU could not queue: operations whose answer or shape the host must wait for."""

    WAITING = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
    INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put_)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = func.overloadpacket in self.INDEXING and any(
            getattr(index, "dtype", None) == torch.bool for index in tree_leaves(args[1])
        )
        if masked or self.WAITING & set(func.tags):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **kwargs or {})


@contextmanager
def as_on_another_device():
    """The host may ask nothing, and a tensor made without naming a device lies on another than the rest."""
    with NoAnswer(), torch.device("meta"):
        yield


def training_step(device: str, mode: str, precision: str) -> TrainingStep:
    model, world = tiny_model(device), World.alone(torch.device(device))
    clustering = MoGoClustering(ClusteringConfig(mode=mode), seed=7, world=world)
    clustering.centroids = Centroids(*torch.randn(2, 5, 8, device=device).unbind())
    clustering._idle = tuple(torch.zeros(5, dtype=torch.int64, device=device) for _ in range(2))
    optimizer = torch.optim.AdamW(model.online.parameters(), fused=True)
    return TrainingStep(model, optimizer, clustering, LossConfig(), world=world, precision=precision)


@pytest.mark.parametrize("mode", ["epoch", "online"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_asks_the_device_nothing(mode, precision):
    step = training_step("cpu", mode, precision)
    views = torch.randn(2, 2, 3, 64, 64).unbind()
    step([views])
    with as_on_another_device():
        outcome = step([views])
    assert outcome.losses.total.isfinite()


@pytest.mark.parametrize(
    "question",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 2).index_put_((x > 2,), x),
        lambda x: x + torch.zeros(3),
    ],
)
def test_a_question_to_the_device_would_be_noticed(question):
    x = torch.ones(3)
    with as_on_another_device(), pytest.raises((AssertionError, RuntimeError), match=r"waits for|meta"):
        question(x)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["epoch", "online"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_never_waits_for_the_device(mode, precision):
    step = training_step("cuda", mode, precision)
    views = torch.randn(2, 2, 3, 64, 64, device="cuda").unbind()
    step([views])
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcomes = [step([views]) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(outcome.losses.total.isfinite() for outcome in outcomes)
