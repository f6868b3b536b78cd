"""CLS attention to foreground map in Triton: one program per image, which stays in registers throughout.

The arithmetic is float64, as in the reference, so that the order of a sum does not decide on which side of
the threshold on a cumulative sum a cell lies. A map holds at most 4096 cells, so that this costs little.

The threshold is found by bisection, not by sorting: the bit patterns of non-negative floats are ordered like
their values, so 63 masked sums give the greatest value such that its cells and all smaller ones stay within
the mass to be dropped. Cells that equal the next value are taken in row-major order, as by a stable sort.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import CompileCase

BLUR_SIGMA = 0.6
TAP_SCALE = -0.5 / BLUR_SIGMA**2


@triton.jit
def foreground_kernel(
    mask,
    attention,
    strides,
    heads,
    h,
    w,
    KEEP_MASS: tl.constexpr,
    MIN_SIZE: tl.constexpr,
    TAP_SCALE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """The foreground map (h, w) of one image's attention (heads, h, w)."""
    image = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK_H)[:, None]
    columns = tl.arange(0, BLOCK_W)[None, :]
    inside = (rows < h) & (columns < w)
    at = attention + image * strides[0] + rows.to(tl.int64) * strides[2] + columns.to(tl.int64) * strides[3]
    mean = tl.zeros((BLOCK_H, BLOCK_W), tl.float64)
    for _ in range(heads):
        mean += tl.load(at, mask=inside, other=0).to(tl.float64)
        at += strides[1]
    mean /= heads
    row = tl.broadcast_to(rows, (BLOCK_H, BLOCK_W))
    column = tl.broadcast_to(columns, (BLOCK_H, BLOCK_W))
    blurred = blur(blur(mean, row, h, 0, TAP_SCALE), column, w, 1, TAP_SCALE)
    blurred = tl.where(inside, blurred, 0)
    kept = greatest_cells(blurred, KEEP_MASS, BLOCK_H, BLOCK_W) & inside
    if MIN_SIZE > 1:
        kept = kept & in_crowd(kept, row, column, MIN_SIZE)
    at = mask + image * h * w + rows * w + columns
    tl.store(at, kept, mask=inside)


@triton.jit
def blur(x, index, size, axis: tl.constexpr, TAP_SCALE: tl.constexpr):
    """Gaussian blur of seven taps along one axis, reflecting at the ends as often as needed."""
    period = tl.maximum(2 * (size - 1), 1)
    total = tl.zeros_like(x)
    weights = 0.0
    for step in tl.static_range(-3, 4):
        tap = tl.exp(tl.full((), step * step, tl.float64) * TAP_SCALE)
        folded = (index + step + 6 * period) % period
        source = tl.minimum(tl.minimum(folded, period - folded), size - 1)
        total += tap * tl.gather(x, source, axis)
        weights += tap
    return total / weights


@triton.jit
def greatest_cells(x, KEEP_MASS: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr):
    """The cells at which the ascending cumulative mass exceeds 1 - KEEP_MASS."""
    bits = x.to(tl.int64, bitcast=True)
    limit = (1 - KEEP_MASS) * tl.sum(tl.sum(x, axis=1), axis=0)
    # Cells up to `dropped` hold no more than the limit; it is the greatest such bit pattern.
    dropped = tl.full((), -1, tl.int64)
    for bit in range(62, -1, -1):
        trial = dropped + (tl.full((), 1, tl.int64) << bit)
        fits = mass_up_to(x, bits, trial) <= limit
        dropped = tl.where(fits, trial, dropped)
    next_bits = tl.min(tl.min(tl.where(bits > dropped, bits, 2**63 - 1), axis=1), axis=0)
    ties = bits == next_bits
    order = tl.cumsum(tl.reshape(ties.to(tl.int32), (BLOCK_H * BLOCK_W,)), axis=0)
    order = tl.reshape(order, (BLOCK_H, BLOCK_W))
    within = mass_up_to(x, bits, dropped) + order * x <= limit
    # With a cell that is NaN the limit is NaN, too, and no cell exceeds it.
    known = x + limit == x + limit
    return (bits > dropped) & ~(ties & within) & known


@triton.jit
def mass_up_to(x, bits, limit):
    """The sum of the cells whose bit pattern is at most `limit`."""
    return tl.sum(tl.sum(tl.where(bits <= limit, x, 0), axis=1), axis=0)


@triton.jit
def in_crowd(kept, row, column, MIN_SIZE: tl.constexpr):
    """Cells with a kept cell in their 3x3 neighbourhood that has at least MIN_SIZE kept cells in its own."""
    cells = kept.to(tl.int32)
    crowd = shifted(cells, row, 0, -1) + cells + shifted(cells, row, 0, 1)
    crowd = (shifted(crowd, column, 1, -1) + crowd + shifted(crowd, column, 1, 1)) * cells
    most = tl.maximum(tl.maximum(shifted(crowd, row, 0, -1), crowd), shifted(crowd, row, 0, 1))
    most = tl.maximum(tl.maximum(shifted(most, column, 1, -1), most), shifted(most, column, 1, 1))
    return most >= MIN_SIZE


@triton.jit
def shifted(x, index, axis: tl.constexpr, step: tl.constexpr):
    """The neighbours of all cells along one axis, 0 beyond the block."""
    size: tl.constexpr = x.shape[axis]
    neighbour = index + step
    beyond = (neighbour < 0) | (neighbour >= size)
    return tl.where(beyond, 0, tl.gather(x, tl.minimum(tl.maximum(neighbour, 0), size - 1), axis))


def foreground_mask(cls_attention: Tensor, keep_mass: float, min_size: int) -> Tensor:
    """Blur the mean head, keep its greatest cells up to `keep_mass`, drop small components."""
    return foreground_op(cls_attention.detach(), keep_mass, min_size)


@torch.library.custom_op("hcl_kernels::foreground_mask", mutates_args=())
def foreground_op(cls_attention: Tensor, keep_mass: float, min_size: int) -> Tensor:
    """`foreground_mask` as a torch operator."""
    mask = _empty_mask(cls_attention, keep_mass, min_size)
    batch, heads, h, w = cls_attention.shape
    block_h, block_w = blocks(h, w)
    if not batch:
        return mask
    with torch.cuda.device_of(mask):
        foreground_kernel[(batch,)](
            mask,
            cls_attention,
            cls_attention.stride(),
            heads,
            h,
            w,
            KEEP_MASS=keep_mass,
            MIN_SIZE=min_size,
            TAP_SCALE=TAP_SCALE,
            BLOCK_H=block_h,
            BLOCK_W=block_w,
            num_warps=warps(block_h * block_w),
        )
    return mask


@foreground_op.register_fake
def _empty_mask(cls_attention: Tensor, keep_mass: float, min_size: int) -> Tensor:
    batch, _, h, w = cls_attention.shape
    return cls_attention.new_empty(batch, h, w, dtype=torch.bool)


def blocks(h: int, w: int) -> tuple[int, int]:
    """Return the sides of the block that holds an (h, w) map."""
    return max(triton.next_power_of_2(h), 4), max(triton.next_power_of_2(w), 4)


def warps(cells: int) -> int:
    """Choose eight cells per thread: small reductions need many threads, 4096 float64 values registers."""
    return min(max(cells // 256, 1), 16)


def compile_cases() -> list[CompileCase]:
    """List the kernel on the grids of 224 and 448 pixels at patches 16, 14 and 8, and at 320 pixels."""
    constants: dict[str, object] = {"KEEP_MASS": 0.7, "MIN_SIZE": 3, "TAP_SCALE": TAP_SCALE}
    return [_case(side, dtype, constants) for side in (16, 32, 64) for dtype in ("fp32", "fp16", "bf16")]


def _case(side: int, dtype: str, constants: dict[str, object]) -> CompileCase:
    constants = {**constants, "BLOCK_H": side, "BLOCK_W": side}
    signature = {
        "mask": "*u1",
        "attention": f"*{dtype}",
        "strides": ("i32",) * 4,
        **dict.fromkeys(("heads", "h", "w"), "i32"),
        **dict.fromkeys(constants, "constexpr"),
    }
    name = f"foreground_kernel {side}x{side} {dtype}"
    return CompileCase(name, foreground_kernel, signature, constants, warps(side * side), 3)
