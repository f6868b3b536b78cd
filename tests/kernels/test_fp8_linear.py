"""FP8 linear layers, which torch computes on a CPU too, slowly."""

import pytest
import torch
import torch.nn.functional as F

from kernels.linear.fp8 import FORMAT, LARGEST, fp8_linear, quantised


def case(rows: int = 33, inputs: int = 48, outputs: int = 32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_rounding_is_relative_whatever_the_size_of_the_values(size):
    """e4m3 has three bits behind the leading one; below its normal range steps are even."""
    values = case()[0] * size
    rounded, scale = quantised(values)
    assert rounded.dtype == FORMAT
    error = (rounded.float() * scale - values).abs()
    step = 2.0**-9 * scale
    assert bool((error <= torch.maximum(values.abs() * 2.0**-4, step / 2) * (1 + 1e-5)).all())
    assert LARGEST / 2 <= rounded.float().abs().max() <= LARGEST
    assert scale.log2() == scale.log2().round()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("larger", [1.0, 3.0, 100.0])
def test_a_token_is_rounded_alike_whatever_is_beside_it(dtype, larger):
    tokens = case()[0].to(dtype)
    alone, scale = quantised(tokens)
    beside, scale_beside = quantised(torch.cat([tokens, larger * tokens]))
    normal = alone.float().abs() * scale / scale_beside >= 2.0**-6
    assert normal.float().mean() > 0.9
    ours, others = alone.float() * scale, beside[: len(tokens)].float() * scale_beside
    assert torch.equal(ours[normal], others[normal])


@pytest.mark.parametrize("exponent", [-3, 0, 5])
def test_the_largest_number_of_the_format_fits_where_it_just_does(exponent):
    rounded, scale = quantised(torch.tensor([LARGEST * 2.0**exponent, 1.0]))
    assert scale == 2.0**exponent
    assert rounded[0].float() == LARGEST


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_does_not_become_a_number(bad):
    rounded, scale = quantised(torch.tensor([1.0, bad]))
    assert (rounded.float() * scale)[1].isnan()


def test_zeros_stay_zeros():
    rounded, scale = quantised(torch.zeros(3, 16))
    assert scale > 0
    assert not rounded.float().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(33, 48), (2, 5, 48), (1, 48), (48,), (0, 48)])
def test_the_product_is_that_of_the_rounded_values(dtype, shape):
    _, weight, bias = case()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(6)).to(dtype)
    (weight8, scale), (x8, x_scale) = quantised(weight), quantised(x)
    exact = F.linear(x8.double() * x_scale, weight8.double() * scale, bias.bfloat16().double())
    found = fp8_linear(x, weight8, scale, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=2**-7)


def test_half_precision_takes_a_scale_that_it_could_not_hold():
    """1 / scale is 2^18 here, and 2^40 of zeros; a GPU would round it to the values' type first."""
    rounded, scale = quantised(torch.full((2, 16), 1e-3, dtype=torch.float16))
    assert rounded.dtype == FORMAT
    torch.testing.assert_close(rounded.float() * scale, torch.full((2, 16), 1e-3), rtol=2**-4, atol=0)
    assert not quantised(torch.zeros(2, 16, dtype=torch.float16))[0].float().any()


def test_transposed_tensors_become_rows_of_their_own():
    x, weight, bias = case()
    turned, scale = quantised(weight.T.contiguous().T)
    assert turned.is_contiguous()
    expected = fp8_linear(x, *quantised(weight), bias)
    assert torch.equal(fp8_linear(x.T.contiguous().T, turned, scale, bias), expected)


def test_it_is_near_the_product_in_full_precision():
    x, weight, bias = case(rows=200, inputs=384, outputs=96)
    exact = F.linear(x, weight, bias)
    error = (fp8_linear(x, *quantised(weight), bias).float() - exact).norm() / exact.norm()
    assert 0.01 < error < 0.06


def test_shapes_and_dtypes_that_cannot_be_multiplied_are_refused():
    x, weight, bias = case()
    with pytest.raises(ValueError, match=r"torch\.float32"):
        fp8_linear(x, weight, torch.tensor(1.0), bias)
    with pytest.raises(ValueError, match=r"multiples of 16, got x \(33, 40\)"):
        fp8_linear(x[:, :40], *quantised(weight[:, :40]), bias)
    with pytest.raises(ValueError, match=r"weight \(32, 48\)"):
        fp8_linear(x[:, :32], *quantised(weight), bias)


def test_it_compiles_whole():
    x, weight, bias = case()
    weight8, scale = quantised(weight)
    compiled = torch.compile(fp8_linear, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, weight8, scale, bias), fp8_linear(x, weight8, scale, bias))
