"""Linear layers by oneDNN against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.linear import linear, onednn

needs_onednn = pytest.mark.skipif(not onednn.runs_on(torch.zeros(1)), reason="torch has no oneDNN here")
SHAPES = [((5, 7), 3), ((2, 3, 64), 65), ((1, 1), 1), ((0, 4), 2), ((31, 128), 33)]


def case(shape: tuple[int, ...], outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(size, generator=generator) for size in (shape, (outputs, shape[-1]), (outputs,)))


def with_gradients(function, *tensors: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    out.square().sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@needs_onednn
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_output_and_gradients_are_as_near_to_the_truth_as_torchs(shape, outputs):
    tensors = case(shape, outputs)
    ours = with_gradients(lambda *t: linear(*t, impl="onednn"), *tensors)
    plain = with_gradients(F.linear, *tensors)
    truth = with_gradients(F.linear, *(tensor.double() for tensor in tensors))
    for mine, reference, exact in zip(ours, plain, truth, strict=True):
        bound = (reference - exact).abs().amax() if exact.numel() else 0
        tolerance = 4e-7 * exact.abs().amax() if exact.numel() else 0
        assert bool(((mine - exact).abs() <= bound + tolerance).all())


@needs_onednn
def test_without_bias_and_without_a_gradient_of_the_input():
    x, weight, _ = case((4, 6), 5)
    weight.requires_grad_()
    out = linear(x, weight, impl="onednn")
    torch.testing.assert_close(out, x @ weight.T)
    out.sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(dim=0).expand(5, -1))


@needs_onednn
def test_one_row_without_a_batch():
    tensors = case((4,), 5)
    ours = with_gradients(lambda *t: linear(*t, impl="onednn"), *tensors)
    torch.testing.assert_close(ours, with_gradients(F.linear, *tensors))


@needs_onednn
def test_forward_mode_is_torchs():
    x, weight, bias = case((3, 4), 5)
    _, tangent = torch.func.jvp(lambda w: linear(x, w, bias), (weight,), (weight,))
    torch.testing.assert_close(tangent, F.linear(x, weight))


@needs_onednn
def test_strided_inputs():
    x, weight, bias = case((6, 8), 5)
    strided = (x.t().contiguous().t(), weight.t().contiguous().t(), bias[:1].expand(5))
    ours = with_gradients(lambda *t: linear(*t, impl="onednn"), *strided)
    torch.testing.assert_close(ours, with_gradients(F.linear, *strided))


@needs_onednn
def test_the_operation_keeps_torchs_rules():
    leaves = [tensor.requires_grad_() for tensor in case((2, 3, 4), 5)]
    torch.library.opcheck(torch.ops.hcl_kernels.linear, tuple(leaves))


@needs_onednn
def test_it_compiles_into_one_graph():
    tensors = case((3, 4), 5)
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(with_gradients(compiled, *tensors), with_gradients(F.linear, *tensors))


@needs_onednn
def test_autocast_and_other_dtypes_are_torchs():
    x, weight, bias = case((3, 4), 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
        with pytest.raises(ValueError, match="needs float32 on a CPU, no autocast"):
            linear(x, weight, bias, impl="onednn")
    assert linear(x.double(), weight.double(), bias.double()).dtype == torch.float64


def test_a_torch_without_onednn_multiplies_itself(monkeypatch):
    x, weight, bias = case((3, 4), 5)
    monkeypatch.setattr(onednn, "AVAILABLE", False)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    with pytest.raises(ValueError, match="built with oneDNN"):
        linear(x, weight, bias, impl="onednn")


def test_bad_arguments_are_named():
    x, weight, bias = case((3, 4), 5)
    with pytest.raises(ValueError, match="impl must be one of"):
        linear(x, weight, bias, impl="mkl")
    with pytest.raises(ValueError, match="expected x of 4 channels"):
        linear(x[:, :3], weight, bias)
    with pytest.raises(ValueError, match=r"weight: expected shape \(O, I\), got \(1, 5, 4\)"):
        linear(x, weight[None], bias)
    with pytest.raises(ValueError, match=r"bias: expected shape \(5,\), got \(1,\)"):
        linear(x, weight, bias[:1])
