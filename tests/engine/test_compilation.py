"""What is compiled, and that it changes no loss."""

from collections.abc import Iterator
from copy import deepcopy
from functools import partialmethod

import pytest
import torch
import torch._dynamo
from torch import nn

from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.distributed import World
from hcl.engine.compilation import compile_model
from hcl.engine.step import LossConfig, TrainingStep
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.hcl import HCL
from hcl.models.seg_head import SegHeadConfig
from hcl.models.vit import Block
from hcl.precision import Precision


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """What one test compiles counts for no other, and neither does the limit that it sets."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()


@pytest.fixture
def model() -> HCL:
    torch.manual_seed(0)
    head = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=2)
    return HCL(build_backbone(BackboneConfig("tiny")), head)


@pytest.fixture
def compiled(monkeypatch) -> list:
    """Modules that are compiled and the modes; none of them is."""
    calls = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: calls.append((self, how)))
    return calls


def steps(model: HCL, device: str = "cpu", count: int = 1, precision: Precision = "fp32") -> torch.Tensor:
    """Losses (count, 4) of steps of two micro-batches."""
    model = model.to(device)
    world = World.alone(torch.device(device))
    clustering = MoGoClustering(ClusteringConfig(), seed=7, world=world)
    centroids = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).to(device)
    clustering.centroids = Centroids(*centroids.unbind())
    optimizer = torch.optim.AdamW(model.online.parameters(), lr=1e-3, fused=True)
    step = TrainingStep(model, optimizer, clustering, LossConfig(), world=world, precision=precision)
    draws = torch.Generator().manual_seed(2)
    losses = []
    for _ in range(count):
        views = torch.randn(2, 2, 2, 3, 64, 64, generator=draws).to(device)
        losses.append(torch.stack(step([(pair[0], pair[1]) for pair in views]).losses))
    return torch.stack(losses).cpu()


@pytest.mark.parametrize(
    ("how", "mode"),
    [(True, None), ("max-autotune", "max-autotune-no-cudagraphs")],
)
def test_every_block_and_the_heads_after_it_are_compiled_whole(model, compiled, how, mode):
    compile_model(model.to("meta"), how)
    blocks = {id(module) for module in model.modules() if isinstance(module, Block)}
    heads = (model.online.seg_head.projection_head, model.momentum.projection_head, model.online.predictor)
    assert {id(module) for module, _ in compiled} == blocks | {id(head) for head in heads}
    assert all(settings == {"fullgraph": True, "mode": mode} for _, settings in compiled)


def test_on_a_cpu_the_backbone_is_not_compiled(model, compiled):
    compile_model(model, True)
    assert not {module for module, _ in compiled} & set(model.backbone.modules())
    assert len(compiled) == 5


def test_nothing_is_compiled_unasked(model, compiled):
    compile_model(model, False)
    steps(model)
    assert compiled == []


def test_models_of_several_formats_and_backends_are_compiled_in_one_process(model, monkeypatch):
    """Three forms of a block each, as a benchmark of all variants makes them."""
    compiled = nn.Module.compile
    for backend in ("eager", "aot_eager"):
        monkeypatch.setattr(nn.Module, "compile", partialmethod(compiled, backend=backend))
        for precision in ("fp32", "bf16"):
            another = deepcopy(model)
            compile_model(another, True)
            assert steps(another, precision=precision).isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("how", [True, "max-autotune"])
def test_compiled_steps_lose_what_eager_ones_do(model, how):
    replayed = deepcopy(model)
    compile_model(replayed, how)
    eager, found = steps(model, "cuda", 8), steps(replayed, "cuda", 8)
    torch.testing.assert_close(found, eager, atol=1e-3, rtol=0)
