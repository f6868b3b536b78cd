"""Linear layers by the library that multiplies fastest on the processor at hand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.linear import onednn

__all__ = ["linear"]

IMPLEMENTATIONS = ("auto", "torch", "onednn")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """Compute x W^T + b, differentiable in all three.

    torch multiplies float32 matrices on a CPU by MKL, which takes slower paths on some processors; oneDNN was
    twice as fast on one AMD EPYC, and as fast on another. Everything else torch computes itself, forward
    mode (jvp) too. By oneDNN there is one backward pass: second derivatives, and torch.func's transforms but
    vmap, are errors there and want `impl="torch"`.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,), or None.
        impl: "auto", "torch" or "onednn".

    Returns:
        (..., O), rounded as the chosen library does.

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
    # An exported program runs where this operation is not known.
    if impl == "torch" or not runs or torch.compiler.is_exporting():
        return F.linear(x, weight, bias)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    return torch.ops.hcl_kernels.linear(x, weight, bias)


def _check_shapes(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.ndim != 2:
        raise ValueError(f"weight: expected shape (O, I), got {tuple(weight.shape)}")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"expected x of {weight.shape[1]} channels, got shape {tuple(x.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected shape ({len(weight)},), got {tuple(bias.shape)}")
