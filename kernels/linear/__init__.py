"""Linear layers by the fastest library for the processor at hand, and with GELU in the same pass."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import choose, exporting
from kernels.linear import onednn

__all__ = ["linear", "linear_gelu"]

IMPLEMENTATIONS = ("auto", "torch", "onednn")
TRITON_DTYPES = (torch.float16, torch.bfloat16)
TRITON_CHANNELS = 16
"""Channels must be multiples of this, so that rows are aligned for wide loads."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """Compute x W^T + b, differentiable in all three.

    torch multiplies float32 matrices on a CPU with MKL, which takes slower paths on some processors; oneDNN
    was twice as fast on one AMD EPYC, and equally fast on another. "auto" uses oneDNN for float32 on a CPU,
    torch for everything else, forward mode (jvp) included. With oneDNN, second derivatives and torch.func's
    transforms except vmap raise errors and need `impl="torch"`.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,), or None.
        impl: "auto", "torch" or "onednn".

    Returns:
        (..., O), with the rounding of the chosen library.

    Raises:
        ValueError: `impl` is none of these, the shapes disagree, or "onednn" cannot run on these tensors.
    """
    _check_shapes(x, weight, bias)
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {IMPLEMENTATIONS}, got {impl!r}")
    runs = onednn.runs_on(*(tensor for tensor in (x, weight, bias) if tensor is not None))
    if impl == "onednn" and not runs:
        raise ValueError(
            "impl='onednn' needs float32 on a CPU, no autocast, no forward mode, and a torch built with "
            f"oneDNN; got {x.dtype} on {x.device}"
        )
    if impl == "torch" or not runs or exporting():
        return F.linear(x, weight, bias)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    return torch.ops.hcl_kernels.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, *, impl: str = "auto") -> Tensor:
    """Compute GELU(x W^T + b), with GELU by erf, for frozen weights: there is no gradient.

    Triton sums the product in float32 and rounds once, after GELU; torch also rounds before GELU. In the
    Triton form -inf becomes 0, the limit, where torch's GELU is NaN. "auto" is Triton for 16-bit CUDA tensors
    whose channels are multiples of 16, and otherwise torch's GELU of `linear`.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,).
        impl: "auto", "torch" or "triton".

    Returns:
        (..., O) of the inputs' dtype.

    Raises:
        ValueError: the shapes or dtypes disagree, a gradient is needed, `impl` is none of these, or "triton"
            cannot run on these channels or on the tensors' device.
        NotImplementedError: "triton" was requested for tensors that are not float16 or bfloat16.
        ModuleNotFoundError: "triton" was requested and is not installed.
    """
    _check_shapes(x, weight, bias)
    _check_frozen(x, weight, bias)
    wide = all(size > 0 and size % TRITON_CHANNELS == 0 for size in weight.shape)
    if impl == "triton" and not wide:
        shape = tuple(weight.shape)
        raise ValueError(f"impl='triton' takes multiples of {TRITON_CHANNELS} channels, got weight {shape}")
    chosen = choose(impl, x, weight, bias, available=wide and x.dtype in TRITON_DTYPES)
    if chosen == "torch" or (impl == "auto" and exporting()):
        return F.gelu(linear(x, weight, bias, impl="auto" if impl == "auto" else "torch"))
    # Imported here, so that the package can be imported without Triton.
    from kernels.linear import triton

    return triton.linear_gelu(x, weight, bias)


def _check_frozen(*tensors: Tensor) -> None:
    if len({tensor.dtype for tensor in tensors}) > 1:
        raise ValueError(f"expected one dtype, got {', '.join(str(tensor.dtype) for tensor in tensors)}")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ValueError("linear_gelu has no gradient: call it under torch.no_grad(), or take GELU of linear")


def _check_shapes(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.ndim != 2:
        raise ValueError(f"weight: expected shape (O, I), got {tuple(weight.shape)}")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"expected x of {weight.shape[1]} channels, got shape {tuple(x.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected shape ({len(weight)},), got {tuple(bias.shape)}")
