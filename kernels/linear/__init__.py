"""Linear layers by the library that multiplies fastest on the processor at hand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.linear import onednn

__all__ = ["linear"]

IMPLEMENTATIONS = ("auto", "torch", "onednn")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, impl: str = "auto") -> Tensor:
    """Compute x W^T + b, differentiable in all three.

    torch multiplies float32 matrices on a CPU by MKL, which knows only one maker's processors well; oneDNN
    is about twice as fast on the others and not slower there. Everything else torch computes itself.

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
    if x.shape[-1] != weight.shape[-1]:
        raise ValueError(f"expected x of {weight.shape[-1]} channels, got shape {tuple(x.shape)}")
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {IMPLEMENTATIONS}, got {impl!r}")
    runs = onednn.runs_on(x, weight)
    if impl == "onednn" and not runs:
        raise ValueError(
            "impl='onednn' needs float32 on a CPU, no autocast, and a torch built with oneDNN; "
            f"got {x.dtype} on {x.device}"
        )
    # An exported program runs where this operation is not known.
    if impl == "torch" or not runs or torch.compiler.is_exporting():
        return F.linear(x, weight, bias)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    return torch.ops.kernels.linear(x, weight, bias)
