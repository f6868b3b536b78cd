"""The dense CRF's kernels as torch operators, which check nothing and never synchronise with the host.

B images, C classes, N pixels, T tiles, S slots (see `tiles`), W: C rounded up to a multiple of 8.
"""

import torch
import triton
from torch import Tensor

from kernels.crf.configurations import (
    BLOCK_L,
    BLOCK_M,
    BLOCK_T,
    FILTER_STAGES,
    STAGES,
    UPDATE_WARPS,
    WARPS,
    class_block,
    sums_warps,
    update_blocks,
    value_width,
)
from kernels.crf.tiles import BLOCK
from kernels.crf.triton_kernels import (
    crf_filter_kernel,
    crf_gaussian_kernel,
    crf_near_kernel,
    crf_sums_kernel,
    crf_update_kernel,
)
from kernels.tl_utils import DOT_PRECISION, TL_DTYPES


@torch.library.custom_op("hcl_kernels::crf_near_lists", mutates_args=())
def near_lists(
    low: Tensor,
    high: Tensor,
    rows: Tensor,
    columns: Tensor,
    limit: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """List for every tile the tiles that have a pixel within the squared distance `limit` of one of its own.

    Also sum the weights of these tiles' pixels, rounded to `dtype`. Returns near, counts and scale.
    """
    products = rows.dtype == torch.float16
    near, counts, scale = _empty_lists(low, high, rows, columns, limit, dtype)
    batch, tiles = counts.shape
    with torch.cuda.device_of(near):
        crf_near_kernel[tiles, batch](
            near, counts, low.contiguous(), high.contiguous(), tiles, limit, BLOCK_T=BLOCK_T
        )
        crf_sums_kernel[tiles, batch](
            scale,
            near,
            counts,
            rows.contiguous(),
            columns.contiguous(),
            tiles * BLOCK,
            limit,
            BLOCK=BLOCK,
            PRODUCTS=products,
            DTYPE=TL_DTYPES[dtype],
            num_warps=sums_warps(products),
            num_stages=STAGES,
        )
    return near, counts, scale


@near_lists.register_fake
def _empty_lists(
    low: Tensor,
    high: Tensor,
    rows: Tensor,
    columns: Tensor,
    limit: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, tiles = low.shape
    near = low.new_empty(batch, tiles, tiles, dtype=torch.int32)
    return near, near.new_empty(batch, tiles), low.new_empty(batch, tiles * BLOCK)


@torch.library.custom_op("hcl_kernels::crf_filter", mutates_args=())
def crf_filter(values: Tensor, rows: Tensor, columns: Tensor, near: Tensor, counts: Tensor) -> Tensor:
    """Sum values (B, S, W) of near slots by weight. (B, S, W) float32; other arguments as in `Bilateral`."""
    batch, slots, width = values.shape
    out = _empty_sums(values, rows, columns, near, counts)
    products = rows.dtype == torch.float16
    block_c = class_block(width, products)
    with torch.cuda.device_of(out):
        crf_filter_kernel[(slots // BLOCK, triton.cdiv(width, block_c), batch)](
            out,
            values.contiguous(),
            rows.contiguous(),
            columns.contiguous(),
            near.contiguous(),
            counts.contiguous(),
            slots,
            WIDTH=width,
            BLOCK=BLOCK,
            BLOCK_C=block_c,
            PRODUCTS=products,
            num_warps=WARPS,
            num_stages=FILTER_STAGES,
        )
    return out


@crf_filter.register_fake
def _empty_sums(values: Tensor, rows: Tensor, columns: Tensor, near: Tensor, counts: Tensor) -> Tensor:
    return values.new_empty(values.shape, dtype=torch.float32)


@torch.library.custom_op("hcl_kernels::crf_gaussian", mutates_args=())
def crf_gaussian(values: Tensor, along_rows: Tensor, along_columns: Tensor, reach: int) -> Tensor:
    """Multiply planes (B, C, H, W) float32 with banded matrices (H, H) and (W, W) of half-width `reach`."""
    values = values.contiguous()
    batch, classes, height, width = values.shape
    half, out = torch.empty_like(values), torch.empty_like(values)
    # Length, number and strides of the lines.
    columns, rows = (height, width, width, 1), (width, height, 1, width)
    passes = ((half, values, along_rows, columns), (out, half, along_columns, rows))
    with torch.cuda.device_of(values):
        for target, source, weights, (length, lines, *strides) in passes:
            grid = (batch * classes, triton.cdiv(length, BLOCK_L), triton.cdiv(lines, BLOCK_M))
            crf_gaussian_kernel[grid](
                target,
                source,
                weights.contiguous(),
                length,
                lines,
                *strides,
                reach,
                BLOCK_L=BLOCK_L,
                BLOCK_M=BLOCK_M,
                PRECISION=DOT_PRECISION,
            )
    return out


@crf_gaussian.register_fake
def _empty_gaussian(values: Tensor, along_rows: Tensor, along_columns: Tensor, reach: int) -> Tensor:
    return values.new_empty(values.shape)


@torch.library.custom_op("hcl_kernels::crf_update", mutates_args=())
def crf_update(
    unary: Tensor,
    gaussian: Tensor | None,
    sums: Tensor | None,
    slot: Tensor,
    scale: Tensor,
    gaussian_compat: float,
    bilateral_compat: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Compute marginals (B, C, H, W), and by slot the marginals times scale, (B, S, W) in `dtype`.

    The Gaussian message is (B, C, H, W), the bilateral sums are (B, S, W); None: no messages.
    """
    marginals, _ = _empty_update(unary, gaussian, sums, slot, scale, gaussian_compat, bilateral_compat, dtype)
    batch, classes, height, width = unary.shape
    # Values beyond the classes, and those of slots without a pixel, are read too: zeros weigh nothing.
    values = unary.new_zeros(*scale.shape, value_width(classes), dtype=dtype)
    block_n, block_c = update_blocks(classes)
    pixels = height * width
    with torch.cuda.device_of(unary):
        crf_update_kernel[triton.cdiv(pixels, block_n), batch](
            marginals,
            values,
            unary.contiguous(),
            None if gaussian is None else gaussian.contiguous(),
            None if sums is None else sums.contiguous(),
            slot.contiguous(),
            scale.contiguous(),
            gaussian_compat,
            bilateral_compat,
            classes,
            pixels,
            scale.shape[1],
            WIDTH=values.shape[2],
            BLOCK_N=block_n,
            BLOCK_C=block_c,
            MESSAGES=gaussian is not None,
            num_warps=UPDATE_WARPS,
        )
    return marginals, values


@crf_update.register_fake
def _empty_update(
    unary: Tensor,
    gaussian: Tensor | None,
    sums: Tensor | None,
    slot: Tensor,
    scale: Tensor,
    gaussian_compat: float,
    bilateral_compat: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    values = unary.new_empty(*scale.shape, value_width(unary.shape[1]), dtype=dtype)
    return unary.new_empty(unary.shape), values
