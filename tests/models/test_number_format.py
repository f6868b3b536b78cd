"""A backbone made ready for one number format after another."""

from itertools import product

import pytest
import torch

from hcl.models import number_format
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.fp8 import FP8Linear
from hcl.models.frozen import FrozenLinear
from hcl.models.linear import TrainedLinear
from hcl.models.number_format import prepare
from hcl.precision import mixed

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
FORMATS = ["fp32", "bf16", "fp8"]


@pytest.fixture(scope="module")
def backbone():
    return build_backbone(BackboneConfig("tiny"))


@pytest.fixture(autouse=True)
def every_device_computes_in_fp8(monkeypatch):
    monkeypatch.setattr(number_format, "require_support", lambda device, precision: None)


@torch.no_grad()
def z(backbone, precision):
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with mixed(CPU, precision):
        return backbone.concatenated(backbone(images)).float()


@pytest.mark.parametrize(("before", "after"), [*product(FORMATS, repeat=2)])
def test_what_a_backbone_was_ready_for_before_changes_nothing(backbone, before, after):
    found = prepare(prepare(backbone, before, CPU), after, CPU)
    assert torch.equal(z(found, after), z(prepare(backbone, after, CPU), after))


@pytest.mark.parametrize("other", FORMATS)
def test_a_backbone_that_others_prepare_too_gives_the_same_numbers(backbone, other):
    ready = prepare(backbone, "fp32", CPU)
    before = z(ready, "fp32")
    prepare(backbone, other, CPU)
    prepare(ready, other, CPU)
    assert torch.equal(z(ready, "fp32"), before)


@pytest.mark.parametrize(
    ("precision", "device", "kind"),
    [
        ("fp32", CPU, FrozenLinear),
        ("fp32", GPU, TrainedLinear),
        ("bf16", GPU, FrozenLinear),
        ("fp8", GPU, FP8Linear),
    ],
)
def test_every_linear_layer_is_of_the_kind_that_the_format_says(backbone, precision, device, kind):
    for before in (backbone, prepare(backbone, "fp8", CPU)):
        blocks = prepare(before, precision, device).vit.blocks
        layers = [module for module in blocks.modules() if isinstance(module, torch.nn.Linear)]
        assert {type(layer) for layer in layers} == {kind}


def test_parameters_are_shared_and_not_copied(backbone):
    ready = prepare(backbone, "bf16", CPU)
    pairs = zip(backbone.named_parameters(), ready.named_parameters(), strict=True)
    assert all(ours == theirs and one is other for (ours, one), (theirs, other) in pairs)
