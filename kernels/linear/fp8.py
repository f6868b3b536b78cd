"""Linear layers in FP8 (e4m3), for inference: half of bfloat16's bytes, and twice its rate on GPUs with FP8.

A tensor has a single scale, the form that torch supports on every GPU that multiplies in FP8 at all. Some of
these GPUs refuse scales per row, which would gain little, because e4m3 rounds relatively. The scale is a
power of two, so that scaling rounds nothing: the result of a token does not depend on the largest number in
the tensor, unless the token is some 2^15 times smaller.
"""

import torch
from torch import Tensor

FORMAT = torch.float8_e4m3fn
LARGEST = torch.finfo(FORMAT).max
SMALLEST_SCALE = 2.0**-40  # so that a tensor of zeros stays one
EXPONENT_BITS, FRACTION_BITS = 0x7F800000, 0x007FFFFF  # of a float32


def quantised(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Round a tensor to e4m3.

    Returns:
        Values of the tensor's shape in e4m3, and the scale (), float32 and a power of two: their product
        approximates the tensor.
    """
    largest = tensor.abs().amax().float() if tensor.numel() else torch.zeros((), device=tensor.device)
    scale = _power_of_two_above(largest / LARGEST).clamp(min=SMALLEST_SCALE)
    # In float32, since 1 / scale may be too large for float16; contiguous, as the matrix units need rows.
    return (tensor.float() * scale.reciprocal()).to(FORMAT).contiguous(), scale


def _power_of_two_above(number: Tensor) -> Tensor:
    """Return the least power of two not below a positive float32; in integers, as exp2 may be inexact."""
    return ((number.view(torch.int32) + FRACTION_BITS) & EXPONENT_BITS).view(torch.float32)


def fp8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b in FP8, to which x is rounded first; without gradients.

    Args:
        x: (..., I), of any float dtype.
        weight: (O, I) in e4m3, from `quantised`.
        scale: (), scale of the weight.
        bias: (O,), or None.

    Returns:
        (..., O) bfloat16.

    Raises:
        ValueError: the weight is not in e4m3, I or O is not a multiple of 16, or x does not have I channels.
    """
    if weight.dtype != FORMAT:
        raise ValueError(f"expected a weight in {FORMAT}, got {weight.dtype}")
    if weight.shape[0] % 16 or weight.shape[1] % 16 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"FP8 takes channels in multiples of 16, got x {tuple(x.shape)} and weight {tuple(weight.shape)}"
        )
    rows, rows_scale = quantised(x.unsqueeze(0).flatten(0, -2))
    # torch.nn.functional.scaled_mm is public, but supports CPUs and torch.compile only from torch 2.13 on.
    product = torch._scaled_mm(
        rows,
        weight.t(),
        rows_scale,
        scale,
        bias=None if bias is None else bias.to(torch.bfloat16),
        out_dtype=torch.bfloat16,
    )
    return product.view(*x.shape[:-1], len(weight))
