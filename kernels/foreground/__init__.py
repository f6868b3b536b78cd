"""CLS attention to foreground map (HCL, section 3)."""

import math

from torch import Tensor

from kernels.dispatch import choose
from kernels.foreground import reference

__all__ = ["foreground_mask"]

MAX_TRITON_CELLS, MAX_TRITON_SIDE = 4096, 256
"""Limits of the block that holds a map, with sides of powers of two; longer sides compile for minutes."""


def foreground_mask(
    cls_attention: Tensor, keep_mass: float, *, min_size: int = 3, impl: str = "auto"
) -> Tensor:
    """Keep the cells that hold the greater part of the CLS token's attention (HCL, section 3).

    The heads are averaged and blurred (Gaussian 7x7, sigma 0.6, reflect padding); the cells with the most
    attention, which together hold `keep_mass` of it, are foreground; small components are dropped. Batched
    and without host synchronisation. A map without any attention has no foreground.

    Args:
        cls_attention: (B, heads, h, w), non-negative floating point, the CLS row of the last block.
        keep_mass: share of the attention kept as foreground, theta, in (0, 1].
        min_size: the smallest 8-connected component that is kept, in cells: 1 (all are kept), 2 or 3.
        impl: "auto", "torch" or "triton".

    Returns:
        (B, h, w) bool.

    Raises:
        ValueError: the attention is not floating-point (B, heads, h, w), a grid is empty, an argument is out
            of range, or a map is too large for "triton".
    """
    if cls_attention.ndim != 4 or 0 in cls_attention.shape[1:] or not cls_attention.is_floating_point():
        shape = tuple(cls_attention.shape)
        raise ValueError(
            f"expected floating-point (B, heads, h, w), got {cls_attention.dtype} of shape {shape}"
        )
    if not 0 < keep_mass <= 1:
        raise ValueError(f"keep_mass must lie in (0, 1], got {keep_mass}")
    if min_size not in (1, 2, 3):
        raise ValueError(f"min_size must be 1, 2 or 3, got {min_size}")
    sides = [1 << (side - 1).bit_length() for side in cls_attention.shape[2:]]
    small = math.prod(sides) <= MAX_TRITON_CELLS and max(sides) <= MAX_TRITON_SIDE
    if impl == "triton" and not small:
        grid = "x".join(map(str, cls_attention.shape[2:]))
        raise ValueError(
            f"impl='triton' takes up to {MAX_TRITON_CELLS} cells and {MAX_TRITON_SIDE} a side, sides rounded "
            f"up to powers of two, got {grid}; use 'auto' or 'torch'"
        )
    if choose(impl, cls_attention, available=small) == "torch":
        return reference.foreground_mask(cls_attention, keep_mass, min_size)
    # Imported here, so that the package can be imported without Triton.
    from kernels.foreground import triton

    return triton.foreground_mask(cls_attention, keep_mass, min_size)
