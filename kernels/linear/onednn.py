"""Float32 linear layers by oneDNN, forward and backward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

AVAILABLE = torch.backends.mkldnn.is_available()


def runs_on(*tensors: Tensor) -> bool:
    """Return whether oneDNN can take these tensors as they are."""
    return (
        AVAILABLE
        and not torch.is_autocast_enabled("cpu")
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not _in_forward_mode(*tensors)
    )


def _in_forward_mode(*tensors: Tensor) -> bool:
    """Return whether a tensor carries a tangent, which a custom operator would drop silently."""
    if torch.compiler.is_compiling():
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b of x (..., I) and W (O, I), without gradients."""
    if not x.numel() or not weight.numel():
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("hcl_kernels::linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return product(x.contiguous(), weight, bias.contiguous())


@_linear.register_fake
def _empty_output(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(weight)))


def _rows(x: Tensor) -> Tensor:
    """Reshape (..., I) to (N, I), a vector to one row."""
    return x.unsqueeze(0).flatten(0, -2)


@torch.library.custom_op("hcl_kernels::linear_backward", mutates_args=())
def _backward(gradient: Tensor, x: Tensor, weight: Tensor, need_x: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, inputs = _rows(gradient).contiguous(), _rows(x)
    d_x = product(rows, weight.t()).view(x.shape) if need_x else x.new_empty(0)
    return d_x, product(rows.t(), inputs.t()), rows.sum(dim=0)


@_backward.register_fake
def _empty_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, need_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    d_x = x.new_empty(x.shape if need_x else (0,))
    return d_x, torch.empty_like(weight, memory_format=torch.contiguous_format), x.new_empty(len(weight))


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
    x, weight = ctx.saved_tensors
    d_x, d_weight, d_bias = torch.ops.hcl_kernels.linear_backward(
        gradient, x, weight, ctx.needs_input_grad[0]
    )
    return d_x if ctx.needs_input_grad[0] else None, d_weight, d_bias


_linear.register_autograd(_gradients, setup_context=_keep_inputs)
