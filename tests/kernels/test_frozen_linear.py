"""Weights that oneDNN lays out once."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from kernels.linear.frozen import FrozenWeight, runs_in

DTYPES = [
    pytest.param(
        dtype, marks=pytest.mark.skipif(not runs_in(dtype), reason=f"oneDNN has no {dtype} on this processor")
    )
    for dtype in (torch.float32, torch.bfloat16)
]


def case(dtype: torch.dtype, inputs: int = 48, outputs: int = 33) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    weight, bias = (torch.randn(shape, generator=generator) for shape in ((outputs, inputs), (outputs,)))
    return weight.to(dtype), bias.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(200, 48), (2, 5, 48), (1, 48), (48,), (0, 48)])
def test_the_product_is_as_near_the_exact_one_as_torchs_own(dtype, gelu, shape):
    weight, bias = case(dtype)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(6)).to(dtype)
    exact = F.linear(x.double(), weight.double(), bias.double())
    plain = F.linear(x, weight, bias)
    if gelu:
        exact, plain = F.gelu(exact), F.gelu(plain)
    found = FrozenWeight(weight, bias).product(x, gelu=gelu)
    assert found.dtype == dtype
    assert found.shape == plain.shape
    error, theirs = (found.double() - exact).abs(), (plain.double() - exact).abs()
    # What sums in another order may differ by, as the terms have both signs.
    terms = F.linear(x.double().abs(), weight.double().abs(), bias.double().abs())
    assert bool((error <= theirs + torch.finfo(dtype).eps * terms).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_do_not_matter(dtype):
    frozen = FrozenWeight(*case(dtype))
    x = torch.randn(4, 48, 7).to(dtype)
    assert torch.equal(frozen.product(x.mT), frozen.product(x.mT.contiguous()))


def test_a_copy_shares_what_never_changes():
    frozen = FrozenWeight(*case(torch.float32))
    assert deepcopy([frozen])[0] is frozen


def test_a_later_change_of_the_weight_does_not_reach_it():
    weight, bias = case(torch.float32)
    frozen, x = FrozenWeight(weight, bias), torch.randn(3, 48)
    before = frozen.product(x)
    weight.zero_()
    assert torch.equal(frozen.product(x), before)


def test_what_it_cannot_multiply_is_refused():
    weight, bias = case(torch.float32)
    with pytest.raises(ValueError, match=r"\(33, 48\), \(32,\)"):
        FrozenWeight(weight, bias[:32])
    with pytest.raises(ValueError, match=r"torch\.float32, torch\.float64"):
        FrozenWeight(weight, bias.double())
    with pytest.raises(ValueError, match=r"does not multiply in torch\.float64 on cpu"):
        FrozenWeight(weight.double(), bias.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_of_weight_and_bias_do_not_matter(dtype):
    weight, bias = case(dtype)
    strided = FrozenWeight(weight.T.contiguous().T, bias.repeat_interleave(2)[::2])
    x = torch.randn(4, 48).to(dtype)
    assert torch.equal(strided.product(x), FrozenWeight(weight, bias).product(x))
