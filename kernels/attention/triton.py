"""Attention in Triton: one launch for all sequences of all images, one tile of a head's queries per program.

The weights never leave the chip: keys and values are streamed in tiles, with a running maximum and sum of
weights (FlashAttention, Dao et al. 2022). A program reads its sequence directly from the concatenated tensor
and writes directly to the output, so that nothing is split, padded or concatenated.

In kernels: `i_` index, `o_` offsets, `m_` mask, `b_` block of values, `_ptr` pointer.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kernels.configurations import HOPPER, NOT_HOPPER, CompileCase
from kernels.tl_utils import POINTERS, is_hopper

LOG2_E = math.log2(math.e)


class Tiles(NamedTuple):
    """Queries and keys of a tile, warps, depth of the pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


def tiles(longest: int, *, hopper: bool) -> Tiles:
    """Choose the kernel's tiles by the longest sequence, on Hopper those that were fastest on an H200.

    With more queries per tile keys and values are read fewer times, but more of the last tile of a short
    sequence is wasted.
    """
    if hopper:
        return Tiles(64, 64 if longest > 512 else 32, 4, 3)
    return Tiles(128, 64, 8, 2) if longest > 512 else Tiles(64, 64, 4, 2)


@triton.jit
def attention_kernel(
    out_ptr,
    qkv_ptr,
    strides,
    lengths,
    tokens,
    tiles,
    SCALE: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Attend BLOCK_M queries of one head of one image, which has `tiles` such tiles per head in total."""
    i_head = tl.program_id(0) // tiles
    i_image = (i_head // HEADS).to(tl.int64)
    i_head = i_head % HEADS
    first, begin, length = find_tile(tl.program_id(0) % tiles, lengths, BLOCK_M)
    o_m, o_d = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    q_ptr = qkv_ptr + i_image * strides[0] + i_head.to(tl.int64) * strides[3]
    q_ptr += begin.to(tl.int64) * strides[1]
    k_ptr = q_ptr + strides[2]
    v_ptr = k_ptr + strides[2]
    b_q = load_rows(q_ptr, o_m, length, strides[1], o_d, D)
    b_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    b_sum = tl.zeros((BLOCK_M,), tl.float32)
    b_out = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, length, BLOCK_N):
        o_n = start + tl.arange(0, BLOCK_N)
        b_k = load_rows(k_ptr, o_n, length, strides[1], o_d, D)
        b_logits = tl.dot(b_q, b_k.T)
        if start + BLOCK_N > length:
            b_logits = tl.where((o_n < length)[None, :], b_logits, float("-inf"))
        # Every tile holds a key, so the maximum is finite from the first tile on.
        b_new_max = tl.maximum(b_max, tl.max(b_logits, axis=1) * SCALE)
        b_weights = tl.exp2(b_logits * SCALE - b_new_max[:, None])
        b_shrink = tl.exp2(b_max - b_new_max)
        b_sum = b_sum * b_shrink + tl.sum(b_weights, axis=1)
        b_v = load_rows(v_ptr, o_n, length, strides[1], o_d, D)
        b_out = tl.dot(b_weights.to(b_v.dtype), b_v, b_out * b_shrink[:, None])
        b_max = b_new_max
    b_out *= (1 / b_sum)[:, None]
    out_ptr += ((i_image * tokens + begin) * HEADS + i_head) * D
    mask = (o_m < length)[:, None] & (o_d < D)[None, :]
    o_out = o_m[:, None] * (HEADS * D) + o_d[None, :]
    tl.store(out_ptr + o_out, b_out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def find_tile(i_tile, lengths, BLOCK_M: tl.constexpr):
    """Return where a tile begins in its sequence, where that begins in the image, and its length."""
    begin = tl.zeros((), tl.int32)
    length = begin + lengths[0]
    for i in tl.static_range(1, len(lengths)):
        count = tl.cdiv(length, BLOCK_M)
        beyond = i_tile >= count
        i_tile = tl.where(beyond, i_tile - count, i_tile)
        begin = tl.where(beyond, begin + length, begin)
        length = tl.where(beyond, lengths[i], length)
    return i_tile * BLOCK_M, begin, length


@triton.jit
def load_rows(ptr, o_rows, rows, stride, o_d, D: tl.constexpr):
    """Load D columns of rows, 0 out of bounds, where memory may hold NaN. (o_rows, o_d)."""
    mask = (o_rows < rows)[:, None]
    # No column mask where none is needed: it would prevent wide loads.
    if o_d.shape[0] != D:
        mask = mask & (o_d < D)[None, :]
    return tl.load(ptr + o_rows[:, None] * stride + o_d[None, :], mask=mask, other=0.0)


def attend(qkv: Tensor, lengths: Sequence[int]) -> Tensor:
    """Compute softmax(q k^T / sqrt(d)) v within each sequence and head."""
    return attention_op(qkv, list(lengths))


@torch.library.custom_op("hcl_kernels::attention", mutates_args=())
def attention_op(qkv: Tensor, lengths: list[int]) -> Tensor:
    """`attend` as a torch operator."""
    out = _empty_out(qkv, lengths)
    batch, tokens, _, heads, width = qkv.shape
    # The kernel computes offsets within an image in 32 bits.
    if qkv.stride(-1) != 1 or tokens * qkv.stride(1) >= 2**31:
        qkv = qkv.contiguous()
    tile = tiles(max(lengths), hopper=is_hopper(qkv))
    count = sum(triton.cdiv(length, tile.queries) for length in lengths)
    if not batch:
        return out
    with torch.cuda.device_of(out):
        attention_kernel[(batch * heads * count,)](
            out,
            qkv,
            qkv.stride()[:4],
            tuple(lengths),
            tokens,
            count,
            **_constants(tile, heads, width),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return out


@register_flop_formula(torch.ops.hcl_kernels.attention)
def _flops(qkv: torch.Size, lengths: list[int], *others: object, **named: object) -> int:
    """Count the operations of both products, as torch does for its own attention."""
    batch, _, _, heads, width = qkv
    return 4 * batch * heads * width * sum(length**2 for length in lengths)


@attention_op.register_fake
def _empty_out(qkv: Tensor, lengths: list[int]) -> Tensor:
    batch, tokens, _, heads, width = qkv.shape
    return qkv.new_empty(batch, tokens, heads * width)


def _constants(tile: Tiles, heads: int, width: int) -> dict[str, object]:
    return {
        "SCALE": LOG2_E / math.sqrt(width),
        "HEADS": heads,
        "D": width,
        "BLOCK_D": triton.next_power_of_2(width),
        "BLOCK_M": tile.queries,
        "BLOCK_N": tile.keys,
    }


def compile_cases() -> list[CompileCase]:
    """List the kernel on one to four levels of ViT-S, and with other head widths, padded or not."""
    short, long = (257, 65, 17), (785, 197, 50, 17)
    shapes = [*((64, lengths) for lengths in ((196,), short, long)), (32, short), (48, short)]
    shapes += [(128, short), (128, long)]
    dtypes = (torch.float16, torch.bfloat16)
    return [_case(*shape, dtype, hopper) for hopper in (False, True) for shape in shapes for dtype in dtypes]


def _case(width: int, lengths: tuple[int, ...], dtype: torch.dtype, hopper: bool) -> CompileCase:
    tile = tiles(max(lengths), hopper=hopper)
    constants = _constants(tile, 384 // width, width)
    signature = {
        "out_ptr": POINTERS[dtype],
        "qkv_ptr": POINTERS[dtype],
        "strides": ("i32:16",) * 4,
        "lengths": ("i32",) * len(lengths),
        **dict.fromkeys(("tokens", "tiles"), "i32"),
        **dict.fromkeys(constants, "constexpr"),
    }
    name = f"attention_kernel L={len(lengths)} d={width} {POINTERS[dtype][1:]}{' Hopper' if hopper else ''}"
    targets = HOPPER if hopper else NOT_HOPPER
    return CompileCase(name, attention_kernel, signature, constants, tile.warps, tile.stages, targets)
