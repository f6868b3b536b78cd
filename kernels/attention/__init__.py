"""Attention within sequences of several lengths that are concatenated in one tensor."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.attention import products, reference
from kernels.dispatch import choose, exporting

__all__ = ["attend"]

TRITON_DTYPES = (torch.float16, torch.bfloat16)
WIDEST_HEAD = 128


def attend(qkv: Tensor, lengths: Sequence[int] | None = None, *, impl: str = "auto") -> Tensor:
    """Compute softmax(q k^T / sqrt(d)) v within each sequence and head.

    The torch form calls scaled_dot_product_attention once per sequence and is differentiable. The Triton form
    has no gradient and takes 16-bit dtypes and head widths d = 16, 32, ... 128. "auto" is Triton for such
    CUDA tensors if no gradient is needed, and torch otherwise, also for float32 on CUDA. On a CPU with
    bfloat16 instructions, it computes long bfloat16 sequences by whole matrix products if no gradient is
    needed.

    Args:
        qkv: (B, N, 3, heads, d), floating point: queries, keys and values of all tokens.
        lengths: tokens of each sequence, which sum to N; None: all tokens are one sequence.
        impl: "auto", "torch" or "triton".

    Returns:
        (B, N, heads * d), the heads concatenated; of qkv's dtype, or of autocast's in the torch form.

    Raises:
        ValueError: qkv is not floating-point (B, N, 3, heads, d), the lengths are not positive or do not sum
            to N, or "triton" does not support this tensor.
    """
    _check(qkv, lengths)
    obstacle = _obstacle(qkv)
    if impl == "triton" and obstacle:
        raise ValueError(f"impl='triton' {obstacle}; use 'auto' or 'torch'")
    sequences = (qkv.shape[1],) if lengths is None else lengths
    if impl == "auto" and products.suits(qkv, sequences):
        return products.attend(qkv, sequences)
    if choose(impl, qkv, available=not obstacle) == "torch" or (impl == "auto" and exporting()):
        return reference.attend(qkv, lengths)
    # Imported here, so that the package can be imported without Triton.
    from kernels.attention import triton

    return triton.attend(qkv, sequences)


def _check(qkv: Tensor, lengths: Sequence[int] | None) -> None:
    if qkv.ndim != 5 or qkv.shape[2] != 3 or 0 in qkv.shape[3:] or not qkv.is_floating_point():
        raise ValueError(
            f"expected floating-point (B, N, 3, heads, d), got {qkv.dtype} of shape {tuple(qkv.shape)}"
        )
    if lengths is None:
        return
    if not lengths or any(length < 1 for length in lengths) or sum(lengths) != qkv.shape[1]:
        raise ValueError(f"lengths must be positive and sum to {qkv.shape[1]} tokens, got {tuple(lengths)}")


def _obstacle(qkv: Tensor) -> str:
    """Return why the Triton form cannot be used; empty if it can."""
    width = qkv.shape[-1]
    if qkv.dtype not in TRITON_DTYPES or width % 16 or width > WIDEST_HEAD:
        widths = f"d a multiple of 16 up to {WIDEST_HEAD}"
        return f"takes float16 and bfloat16 with {widths}, got {qkv.dtype} with d = {width}"
    if math.prod(qkv.shape[1:]) >= 2**31:
        return f"takes fewer than 2^31 numbers an image, got shape {tuple(qkv.shape)}"
    if torch.is_grad_enabled() and qkv.requires_grad:
        return "has no gradient, and qkv wants one"
    return ""
