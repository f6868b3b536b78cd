"""Multi-level token aggregation in Triton: launchers, and their registration with torch.

No statistics are stored or computed in advance: a program holds whole rows, so that a row's mean and variance
need no extra memory traffic, whereas a separate pass would read every level twice.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from kernels.aggregate import triton_kernels
from kernels.aggregate.grid import Grid
from kernels.aggregate.tiles import aggregate_tile, backward_tile, compile_cases, fuse_tile

__all__ = ["aggregate_tokens", "compile_cases", "fuse_tokens"]

CONTIGUOUS = torch.contiguous_format
REDUCTION_PROGRAMS = 512


def aggregate_tokens(
    sequences: Sequence[Tensor],
    grids: Sequence[Grid],
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
) -> Tensor:
    """Compute concat(LN(x_0), up(LN(x_1)), ..., LN(cls_0)) in one pass over every level."""
    return aggregate_op(list(sequences), _flat(grids), norm_weight, norm_bias, eps, _dtype(sequences[0]))


def fuse_tokens(
    sequences: Sequence[Tensor],
    grids: Sequence[Grid],
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
) -> Tensor:
    """Compute LN(W_0 x_0 + sum_l up(W_l x_l) + W_c cls_0 + b): products by torch, all else in one pass."""
    *level_weights, cls_weight = weight.split(sequences[0].shape[-1], dim=1)
    levels = [F.linear(x, w) for x, w in zip(sequences, level_weights, strict=True)]
    cls = F.linear(sequences[0][:, 0], cls_weight, bias)
    return fuse_op(levels, _flat(grids), cls, norm_weight, norm_bias, eps, _dtype(levels[0]))


@torch.library.custom_op("hcl_kernels::aggregate", mutates_args=())
def aggregate_op(
    sequences: list[Tensor],
    grids: list[int],
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """`aggregate_tokens` with the grids flattened into one list."""
    sequences = [_with_unit_stride(x) for x in sequences]
    z = _empty_z(sequences, grids, norm_weight, norm_bias, eps, dtype)
    pairs, width = _pairs(grids), sequences[0].shape[-1]
    rows, block, warps = aggregate_tile(width)
    units = triton.cdiv(z.shape[1], rows) + sum((h + 1) * (w + 1) for h, w in pairs[1:])
    if not z.numel():
        return z
    with torch.cuda.device_of(z):
        triton_kernels.aggregate_forward[(z.shape[0] * units,)](
            z,
            tuple(sequences),
            _strides(sequences),
            pairs,
            norm_weight.contiguous(),
            norm_bias.contiguous(),
            units,
            D=width,
            EPS=eps,
            ROWS=rows,
            BLOCK_D=block,
            ACC=_acc(sequences[0]),
            num_warps=warps,
        )
    return z


@aggregate_op.register_fake
def _empty_z(
    sequences: list[Tensor],
    grids: list[int],
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    batch, _, width = sequences[0].shape
    return sequences[0].new_empty(batch, grids[0] * grids[1], (len(sequences) + 1) * width, dtype=dtype)


@torch.library.custom_op("hcl_kernels::aggregate_backward", mutates_args=())
def aggregate_backward_op(
    d_z: Tensor, sequences: list[Tensor], grids: list[int], norm_weight: Tensor, eps: float
) -> list[Tensor]:
    """Gradients of the sequences, then of the norm's weight and bias."""
    pairs, gradients = _pairs(grids), [torch.empty_like(x, memory_format=CONTIGUOUS) for x in sequences]
    *parts, d_cls = _with_unit_stride(d_z).split(norm_weight.shape[0], dim=2)
    partial_sums = []
    for x, d_x, grid, part in zip(sequences, gradients, pairs, parts, strict=True):
        d_y = torch.zeros_like(x, dtype=_sum_dtype(x), memory_format=CONTIGUOUS)
        _upsample_backward(d_y[:, 1:], grid, part, pairs[0])
        if d_x is gradients[0]:
            d_y[:, 0] = d_cls.sum(dim=1, dtype=d_y.dtype)
        partial_sums.append(_norm_backward(d_x, d_y, [x], [(x.shape[1], 1)], None, norm_weight, eps))
    return [*gradients, *(sum(parts).to(norm_weight.dtype) for parts in zip(*partial_sums, strict=True))]


@aggregate_backward_op.register_fake
def _empty_aggregate_gradients(
    d_z: Tensor, sequences: list[Tensor], grids: list[int], norm_weight: Tensor, eps: float
) -> list[Tensor]:
    gradients = [torch.empty_like(x, memory_format=CONTIGUOUS) for x in sequences]
    return [*gradients, torch.empty_like(norm_weight), torch.empty_like(norm_weight)]


@torch.library.custom_op("hcl_kernels::fuse", mutates_args=())
def fuse_op(
    levels: list[Tensor],
    grids: list[int],
    cls: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """LayerNorm of the sum of projected levels (B, 1 + h_l * w_l, E), upsampled, and cls (B, E)."""
    out = _empty_fused(levels, grids, cls, norm_weight, norm_bias, eps, dtype)
    patches, cls = _patches(levels), _with_unit_stride(cls)
    total, width = math.prod(out.shape[:2]), out.shape[2]
    rows, block, warps = fuse_tile(width, len(levels))
    if not out.numel():
        return out
    with torch.cuda.device_of(out):
        triton_kernels.fuse_forward[(triton.cdiv(total, rows),)](
            out,
            tuple(patches),
            _strides([*patches, cls]),
            _pairs(grids),
            cls,
            norm_weight.contiguous(),
            norm_bias.contiguous(),
            total,
            E=width,
            EPS=eps,
            ROWS=rows,
            BLOCK_E=block,
            ACC=_acc(levels[0]),
            num_warps=warps,
        )
    return out


@fuse_op.register_fake
def _empty_fused(
    levels: list[Tensor],
    grids: list[int],
    cls: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    batch, _, width = levels[0].shape
    return levels[0].new_empty(batch, grids[0] * grids[1], width, dtype=dtype)


@torch.library.custom_op("hcl_kernels::fuse_backward", mutates_args=())
def fuse_backward_op(
    d_out: Tensor, levels: list[Tensor], grids: list[int], cls: Tensor, norm_weight: Tensor, eps: float
) -> list[Tensor]:
    """Gradients of the levels, of cls, then of the norm's weight and bias."""
    gradients = [torch.empty_like(x, memory_format=CONTIGUOUS) for x in levels]
    pairs, patches, d_patches = _pairs(grids), _patches(levels), [x[:, 1:] for x in gradients]
    sums = _norm_backward(d_patches[0], d_out, patches, pairs, cls, norm_weight, eps)
    for d_level, grid in zip(d_patches[1:], pairs[1:], strict=True):
        _upsample_backward(d_level, grid, d_patches[0], pairs[0])
    for gradient in gradients:
        gradient[:, 0] = 0
    d_cls = d_patches[0].sum(dim=1, dtype=_sum_dtype(cls)).to(cls.dtype)
    return [*gradients, d_cls, *(part.to(norm_weight.dtype) for part in sums)]


@fuse_backward_op.register_fake
def _empty_fuse_gradients(
    d_out: Tensor, levels: list[Tensor], grids: list[int], cls: Tensor, norm_weight: Tensor, eps: float
) -> list[Tensor]:
    gradients = [torch.empty_like(x, memory_format=CONTIGUOUS) for x in (*levels, cls)]
    return [*gradients, torch.empty_like(norm_weight), torch.empty_like(norm_weight)]


def _norm_backward(
    d_sum: Tensor,
    d_out: Tensor,
    levels: Sequence[Tensor],
    grids: Sequence[Grid],
    cls: Tensor | None,
    norm_weight: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Fill d_sum with the gradient of the sums of levels; return those of the norm's weight and bias."""
    levels, d_out = [_with_unit_stride(x) for x in levels], _with_unit_stride(d_out)
    cls = None if cls is None else _with_unit_stride(cls)
    total, width = math.prod(d_sum.shape[:2]), d_sum.shape[2]
    rows, block, warps = backward_tile(width)
    tiles = max(triton.cdiv(triton.cdiv(total, rows), REDUCTION_PROGRAMS), 1)
    programs = triton.cdiv(total, rows * tiles)
    partial = d_sum.new_empty(2, programs, width, dtype=_sum_dtype(d_sum))
    if not partial.numel():
        return partial[0].sum(dim=0), partial[1].sum(dim=0)
    with torch.cuda.device_of(d_sum):
        triton_kernels.norm_backward[(programs,)](
            d_sum,
            _strides([d_sum])[0],
            partial[0],
            partial[1],
            d_out,
            _strides([d_out])[0],
            tuple(levels),
            _strides(levels if cls is None else [*levels, cls]),
            tuple(grids),
            cls,
            norm_weight.contiguous(),
            total,
            tiles,
            E=width,
            EPS=eps,
            ROWS=rows,
            BLOCK_E=block,
            ACC=_acc(d_sum),
            num_warps=warps,
        )
    return partial[0].sum(dim=0), partial[1].sum(dim=0)


def _upsample_backward(d_source: Tensor, source_grid: Grid, d_target: Tensor, target_grid: Grid) -> None:
    """Fill d_source (B, h * w, E) from d_target (B, H * W, E)."""
    rows, block, warps = backward_tile(d_source.shape[2])
    if not d_source.numel():
        return
    with torch.cuda.device_of(d_source):
        triton_kernels.upsample_backward[(math.prod(d_source.shape[:2]),)](
            d_source,
            _strides([d_source])[0],
            source_grid,
            d_target,
            _strides([d_target])[0],
            target_grid,
            E=d_source.shape[2],
            ROWS=rows,
            BLOCK_E=block,
            ACC=_acc(d_source),
            num_warps=warps,
        )


def _save_aggregate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    sequences, ctx.grids, norm_weight, _, ctx.eps, _ = inputs
    ctx.save_for_backward(*sequences, norm_weight)


def _aggregate_gradients(ctx: Any, d_z: Tensor) -> tuple[Any, ...]:
    *sequences, norm_weight = ctx.saved_tensors
    *gradients, d_weight, d_bias = aggregate_backward_op(d_z, sequences, ctx.grids, norm_weight, ctx.eps)
    return gradients, None, d_weight, d_bias, None, None


def _save_fuse(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    levels, ctx.grids, cls, norm_weight, _, ctx.eps, _ = inputs
    ctx.save_for_backward(*levels, cls, norm_weight)


def _fuse_gradients(ctx: Any, d_out: Tensor) -> tuple[Any, ...]:
    *levels, cls, norm_weight = ctx.saved_tensors
    gradients = fuse_backward_op(d_out, levels, ctx.grids, cls, norm_weight, ctx.eps)
    *d_levels, d_cls, d_weight, d_bias = gradients
    return d_levels, None, d_cls, d_weight, d_bias, None, None


aggregate_op.register_autograd(_aggregate_gradients, setup_context=_save_aggregate)
fuse_op.register_autograd(_fuse_gradients, setup_context=_save_fuse)


def _dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of torch's LayerNorm for x: float32 under CUDA's autocast."""
    return torch.float32 if x.is_cuda and torch.is_autocast_enabled("cuda") else x.dtype


def _acc(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _flat(grids: Sequence[Grid]) -> list[int]:
    return [side for grid in grids for side in grid]


def _pairs(grids: Sequence[int]) -> tuple[Grid, ...]:
    return tuple(zip(grids[::2], grids[1::2], strict=True))


def _strides(tensors: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Strides of images and tokens; channels are contiguous."""
    return tuple((x.stride(0), x.stride(1)) for x in tensors)


def _with_unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _patches(levels: Sequence[Tensor]) -> list[Tensor]:
    return [_with_unit_stride(x)[:, 1:] for x in levels]
