"""Linear layers with GELU in the same pass."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kernels.linear import linear_gelu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])


def case(shape: tuple[int, ...], outputs: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (shape, (outputs, shape[-1]), (outputs,))
    x, weight, bias = (torch.randn(size, generator=generator) for size in sizes)
    return [tensor.to(DEVICE, dtype) for tensor in (x, 2 * weight / shape[-1] ** 0.5, bias)]


def assert_as_near_as_torch(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    plain = linear_gelu(x, weight, bias, impl="torch")
    assert (found.shape, found.dtype, found.device) == (plain.shape, plain.dtype, plain.device)
    x, weight, bias = x.double(), weight.double(), bias.double()
    exact = F.gelu(F.linear(x, weight, bias))
    terms = F.linear(x.abs(), weight.abs(), bias.abs())
    own = torch.finfo(found.dtype)
    # What rounding the truth itself may cost, and what a sum of float32 numbers may.
    tolerance = own.eps / 2 * exact.abs() + own.tiny * own.eps + 1e-6 * terms
    assert bool(((found.double() - exact).abs() <= (plain.double() - exact).abs() + tolerance).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((1, 16), 16), ((127, 32), 128), ((2, 65, 48), 144), ((3, 43, 2, 80), 272), ((80,), 32), ((1, 272), 16)],
)
def test_it_is_as_near_the_truth_as_torch(shape, outputs, dtype):
    tensors = case(shape, outputs, dtype)
    assert_as_near_as_torch(linear_gelu(*tensors, impl="triton"), *tensors)


@given(
    rows=st.integers(0, 300),
    inputs=st.integers(1, 5).map(lambda sixteens: 16 * sixteens),
    outputs=st.integers(1, 20).map(lambda sixteens: 16 * sixteens),
    seed=st.integers(0, 9),
)
@settings(max_examples=8, deadline=None)
def test_any_shape(rows, inputs, outputs, seed):
    tensors = case((rows, inputs), outputs, torch.float16, seed)
    assert_as_near_as_torch(linear_gelu(*tensors, impl="triton"), *tensors)


def test_the_tail_is_that_of_the_normal_distribution():
    from kernels.linear.triton import LOG2_TAIL

    z = torch.linspace(0, 16, 100_001, dtype=torch.float64)
    log = torch.zeros_like(z)
    for coefficient in LOG2_TAIL:
        log = log * z + coefficient
    found, exact = log.exp2(), torch.special.ndtr(-z)
    assert ((found - exact).abs() / (1 - exact)).max() < 2.0**-18
    near = z < 4
    assert ((found - exact).abs() / exact)[near].max() < 2.0**-18
    assert (z * (found - exact).abs()).max() < 2.0**-20
    assert log[-1] < -150


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_of_every_number_is_the_nearest_or_as_near(dtype):
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()].view(-1, 16).to(DEVICE)
    one, zero = torch.eye(16, device=DEVICE, dtype=dtype), torch.zeros(16, device=DEVICE, dtype=dtype)
    found, exact = linear_gelu(numbers, one, zero, impl="triton").double(), F.gelu(numbers.double())
    own = torch.finfo(dtype)
    ulp = exact.abs().clamp(min=own.tiny).log2().floor().exp2() * own.eps
    # Where bfloat16 has numbers beyond what float64's erf tells from -1, nothing is asked of their digits.
    assert bool(((found - exact).abs() <= 0.52 * ulp + 1e-12).all())


def test_what_is_not_finite_stays_so():
    x = torch.zeros(3, 16, device=DEVICE, dtype=torch.float16)
    bias = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0] * 4).to(x)
    found = linear_gelu(x, torch.zeros(16, 16).to(x), bias, impl="triton").view(-1, 4)
    assert found[:, 0].isnan().all()
    assert (found[:, 1] == torch.inf).all()
    assert not found[:, 2].any()
    torch.testing.assert_close(found[:, 3], F.gelu(bias[3]).expand(12))


def test_every_output_is_written(nan_memory):
    tensors = case((131, 32), 144, torch.float16)
    assert_as_near_as_torch(linear_gelu(*tensors, impl="triton"), *tensors)


def test_strides_do_not_matter():
    x, weight, bias = case((6, 32), 48, torch.float16)
    expected = linear_gelu(x, weight, bias, impl="triton")
    strided = (x.t().contiguous().t(), weight.repeat(1, 2)[:, :32], bias.repeat_interleave(3)[::3])
    assert torch.equal(linear_gelu(*strided, impl="triton"), expected)
    same = linear_gelu(x[:1].expand(6, -1), weight, bias[:1].expand(48), impl="triton")
    assert_as_near_as_torch(same, x[:1].expand(6, -1), weight, bias[:1].expand(48))


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_no_rows_give_no_rows(impl):
    x, weight, bias = case((0, 3, 32), 48, torch.float16)
    assert linear_gelu(x, weight, bias, impl=impl).shape == (0, 3, 48)


def test_opcheck_and_one_graph():
    from kernels.linear.triton import linear_gelu as operation

    tensors = case((2, 3, 16), 32, torch.float16)
    torch.library.opcheck(operation, tuple(tensors))
    compiled = torch.compile(
        lambda *given: linear_gelu(*given, impl="triton"), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(*tensors), linear_gelu(*tensors, impl="triton"))


def test_an_exported_program_is_of_torchs_operations(monkeypatch):
    """As on a GPU, where "auto" is Triton."""
    monkeypatch.setattr("kernels.linear.choose", lambda impl, *tensors, available: "triton")

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return linear_gelu(x, weight, bias)

    tensors = case((3, 16), 32, torch.float16)
    program = torch.export.export(Layer(), tuple(tensors))
    assert "hcl_kernels" not in str(program.graph)
    assert torch.equal(program.module()(*tensors), F.gelu(F.linear(*tensors)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_numbers_are_torchs(dtype):
    tensors = case((3, 16), 32, dtype)
    torch.testing.assert_close(linear_gelu(*tensors), F.gelu(F.linear(*tensors)))
    with pytest.raises(NotImplementedError, match="no Triton form for these dtypes"):
        linear_gelu(*tensors, impl="triton")


@pytest.mark.parametrize(("inputs", "outputs"), [(24, 32), (32, 24), (0, 32)])
def test_channels_that_triton_does_not_take_are_torchs(inputs, outputs):
    x, weight, bias = case((3, 32), outputs, torch.float16)
    tensors = (x[:, :inputs], weight[:, :inputs], bias)
    assert torch.equal(linear_gelu(*tensors), F.gelu(F.linear(*tensors)))
    with pytest.raises(ValueError, match=rf"multiples of 16 channels, got weight \({outputs}, {inputs}\)"):
        linear_gelu(*tensors, impl="triton")


def test_bad_arguments_are_named():
    x, weight, bias = case((3, 16), 32, torch.float16)
    with pytest.raises(ValueError, match="expected x of 16 channels"):
        linear_gelu(x[:, :8], weight, bias)
    with pytest.raises(ValueError, match=r"bias: expected shape \(32,\), got \(16,\)"):
        linear_gelu(x, weight, bias[:16])
    with pytest.raises(ValueError, match=r"expected one dtype, got .*torch\.float32"):
        linear_gelu(x, weight, bias.float())


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_a_gradient_is_refused_where_one_is_wanted(impl):
    x, weight, bias = case((3, 16), 32, torch.float16)
    weight.requires_grad_()
    with pytest.raises(ValueError, match="no gradient"):
        linear_gelu(x, weight, bias, impl=impl)
    with torch.no_grad():
        assert linear_gelu(x, weight, bias, impl=impl).shape == (3, 32)


def test_its_operations_are_counted_as_torch_counts_its_own():
    tensors = case((2, 3, 16), 32, torch.float16)
    linear_gelu(*tensors, impl="triton")  # a counter knows what is registered before it begins
    counts = {}
    for impl in ("torch", "triton"):
        with FlopCounterMode(display=False) as counter:
            linear_gelu(*tensors, impl=impl)
        counts[impl] = counter.get_total_flops()
    assert counts["triton"] == counts["torch"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [384, 768, 1024])
def test_documented_sizes(width, dtype):
    tensors = case((64, 264, width), 4 * width, dtype)
    assert_as_near_as_torch(linear_gelu(*tensors, impl="triton"), *tensors)


@pytest.mark.gpu
@pytest.mark.parametrize(("inputs", "outputs"), [(1024, 16), (16, 1024)])
def test_more_numbers_than_32_bits_count(inputs, outputs):
    last = case((131, inputs), outputs, torch.bfloat16)
    rows = torch.zeros(2**31 // 1024 + 131, inputs, device="cuda", dtype=torch.bfloat16)
    rows[-131:] = last[0]
    found = linear_gelu(rows, *last[1:], impl="triton")
    assert_as_near_as_torch(found[-131:], *last)
    assert_as_near_as_torch(found[:131], rows[:131], *last[1:])
