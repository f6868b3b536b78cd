"""The backbone with weights that are rounded and laid out once."""

from copy import deepcopy

import pytest
import torch

from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.frozen import FrozenLinear, freeze
from hcl.models.number_format import prepare
from hcl.models.pm_vit import PMViT
from hcl.precision import mixed

CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def backbone() -> PMViT:
    return build_backbone(BackboneConfig("tiny"))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))


def frozen(backbone: PMViT, precision: str) -> PMViT:
    copy = deepcopy(backbone)
    freeze(copy, DTYPES[precision])
    return copy


@torch.no_grad()
def z(backbone: PMViT, images: torch.Tensor, precision: str) -> torch.Tensor:
    with mixed(CPU, precision):
        return backbone.concatenated(backbone(images)).float()


@pytest.mark.parametrize("precision", DTYPES)
def test_every_linear_layer_of_the_blocks_is_replaced_and_the_state_dict_stays(backbone, precision):
    prepared = prepare(backbone, precision, CPU)
    layers = [module for module in prepared.modules() if isinstance(module, FrozenLinear)]
    assert len(layers) == 4 * len(backbone.vit.blocks)
    before, after = backbone.state_dict(), prepared.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", DTYPES)
def test_z_is_as_near_the_exact_one_as_without(backbone, images, precision):
    exact = z(deepcopy(backbone).double(), images.double(), "fp32")
    plain, found = z(backbone, images, precision), z(frozen(backbone, precision), images, precision)
    error, theirs = ((tokens - exact).norm() / exact.norm() for tokens in (found, plain))
    assert not torch.equal(found, exact)
    assert error <= 1.1 * theirs


@pytest.mark.parametrize(("ready_for", "computed_in"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_another_number_format_than_it_is_ready_for_is_computed_plainly(
    backbone, images, ready_for, computed_in
):
    found = z(frozen(backbone, ready_for), images, computed_in)
    assert torch.equal(found, z(backbone, images, computed_in))


def test_a_gradient_goes_through_the_plain_layers(backbone, images):
    gradients = []
    for model in (backbone, frozen(backbone, "fp32")):
        leaf = images.clone().requires_grad_()
        model(leaf).sequences[0].sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_a_layer_that_was_moved_does_not_multiply_by_what_stayed_behind(backbone):
    layer = frozen(backbone, "fp32").vit.blocks[0].mlp.fc1.to("meta")
    tokens = torch.empty(2, 5, backbone.embed_dim, device="meta")
    assert layer._product(tokens).device.type == "meta"
    assert layer._product(tokens, gelu=True).device.type == "meta"


@pytest.mark.parametrize("precision", DTYPES)
def test_other_weights_are_laid_out_anew(backbone, images, precision):
    other = deepcopy(backbone)
    with torch.no_grad():
        other.vit.blocks[0].mlp.fc1.weight.mul_(2)
        other.vit.blocks[0].attn.qkv.bias.add_(1)
    ready = frozen(backbone, precision)
    ready.load_state_dict(other.state_dict())
    assert torch.equal(z(ready, images, precision), z(frozen(other, precision), images, precision))


@pytest.mark.parametrize("precision", DTYPES)
def test_a_block_compiles_into_one_graph(backbone, precision):
    block, tokens = frozen(backbone, precision).vit.blocks[0], torch.randn(2, 5, backbone.embed_dim)
    with torch.no_grad(), mixed(CPU, precision):
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(tokens), block(tokens), rtol=0.02, atol=0.02)
