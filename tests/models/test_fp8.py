"""The backbone with its linear layers in FP8. A CPU is refused, but computes it where nobody asks."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo

from hcl import precision
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.fp8 import FP8Linear, multiply_in_fp8
from hcl.precision import mixed, require_support, runs_fp8

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def backbone():
    return build_backbone(BackboneConfig("tiny"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))


def test_every_linear_layer_of_the_blocks_is_replaced_and_the_state_dict_stays(backbone):
    in_fp8 = deepcopy(backbone)
    multiply_in_fp8(in_fp8)
    layers = [module for module in in_fp8.modules() if isinstance(module, FP8Linear)]
    assert len(layers) == 4 * len(backbone.vit.blocks)
    before, after = backbone.state_dict(), in_fp8.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_z_changes_by_some_per_cent(backbone, images):
    in_fp8 = deepcopy(backbone)
    multiply_in_fp8(in_fp8)
    with torch.no_grad():
        exact = backbone.concatenated(backbone(images))
        with mixed(CPU, "bf16"):
            rounded = backbone.concatenated(backbone(images)).float()
        with mixed(CPU, "fp8"):
            found = in_fp8.concatenated(in_fp8(images)).float()
    change, in_bf16 = ((z - exact).norm() / exact.norm() for z in (found, rounded))
    assert in_bf16 < change < 0.1


def test_the_compiler_takes_it_in_one_graph(backbone, images):
    in_fp8 = deepcopy(backbone)
    multiply_in_fp8(in_fp8)
    torch._dynamo.reset()
    with torch.no_grad(), mixed(CPU, "fp8"):
        assert torch._dynamo.explain(in_fp8.__call__)(images).graph_break_count == 0


def test_a_cpu_is_refused_in_a_sentence(tmp_path, capsys):
    from hcl.commands import train  # the only test here that needs the parser of settings

    run = ["--data.kind=scenes", f"--data.root={tmp_path / 'scenes'}", "--data.split=train"]
    command = [*run, "--backbone.name=tiny", "--precision=fp8", "--device=cpu", "--output", str(tmp_path)]
    assert train.main([*command, "--batch_size=2"]) == 2
    assert "precision fp8 needs an NVIDIA GPU of compute capability 8.9 or more, but this is a CPU: use " in (
        " ".join(capsys.readouterr().err.split())
    )


@pytest.mark.parametrize(
    ("capability", "hip", "runs"),
    [((8, 0), None, False), ((8, 9), None, True), ((9, 0), None, True), ((9, 4), "6.4", False)],
)
def test_gpus_are_told_apart_by_their_capability(monkeypatch, capability, hip, runs):
    cuda = SimpleNamespace(get_device_capability=lambda _: capability, get_device_name=lambda _: "that GPU")
    monkeypatch.setattr(precision.torch, "cuda", cuda)
    monkeypatch.setattr(precision.torch.version, "hip", hip)
    assert runs_fp8(GPU) is runs
    if not runs:
        with pytest.raises(ValueError, match="this is that GPU: use --precision bf16"):
            require_support(GPU, "fp8")


@pytest.mark.gpu
def test_a_gpu_gives_what_a_cpu_gives(backbone, images):
    if not runs_fp8(GPU):
        pytest.skip("needs compute capability 8.9")
    found = []
    for device in (CPU, GPU):
        in_fp8 = deepcopy(backbone)
        multiply_in_fp8(in_fp8)
        with torch.no_grad(), mixed(device, "fp8"):
            in_fp8.to(device)
            found.append(in_fp8.concatenated(in_fp8(images.to(device))).float().cpu())
    assert (found[0] - found[1]).norm() / found[0].norm() < 0.05
