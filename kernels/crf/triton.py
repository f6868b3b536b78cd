"""The exact dense CRF in Triton: lists of near tiles, the bilateral filter over them, mean field around it.

The bilateral filter is attention without softmax: the weights of two tiles of pixels are computed where they
are used and multiplied with the messages of all classes; tile pairs that are far apart are not visited.
B images, C classes, N pixels, T tiles, S slots (see `tiles`), W: the classes, as many as a multiple of 8.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from kernels.crf.configurations import (
    BLOCK_T,
    STAGES,
    WARPS,
    class_block,
    compile_cases,
    sums_warps,
    update_blocks,
    value_width,
)
from kernels.crf.energy import Pairwise, unary_energy
from kernels.crf.gaussian import gaussian_matrices
from kernels.crf.operands import FAR, product_operands, products_suffice
from kernels.crf.tiles import BLOCK, Tiles, build_tiles, farthest, feature_scale
from kernels.crf.triton_kernels import crf_filter_kernel, crf_near_kernel, crf_sums_kernel, crf_update_kernel
from kernels.dispatch import TRITON_INTERPRETED
from kernels.precision import without_autocast
from kernels.tl_utils import TL_DTYPES

__all__ = ["compile_cases", "dense_crf"]

# Messages and weights lie in [0, 1] and are summed in float32, where errors of 2^-11 average out.
MESSAGE_DTYPE = torch.float32 if TRITON_INTERPRETED else torch.float16
# Images are taken as many at a time as have this many tile pairs (4 bytes each), but at least one.
MAX_TILE_PAIRS = 2**28


class Bilateral(NamedTuple):
    """The bilateral kernel of images, as sparse as the tolerance lets it be.

    Attributes:
        rows, columns: of products (`product_operands`), or of differences, (B, 5, S) float32.
        near, counts: for every tile the tiles near it, in order, (B, T, T), and their number, (B, T); int32.
        scale: (B, S) float32, one over the root of a slot's row sum.
        slot: (B, N) int64, the slot of each pixel.
    """

    rows: Tensor
    columns: Tensor
    near: Tensor
    counts: Tensor
    scale: Tensor
    slot: Tensor

    def filter(self, values: Tensor) -> Tensor:
        """Sum values (B, S, W) by weight. (B, S, W) float32."""
        return crf_filter(values, self.rows, self.columns, self.near, self.counts)


def dense_crf(
    probabilities: Tensor, images: Tensor, iterations: int, pairwise: Pairwise, tolerance: float
) -> Tensor:
    """Mean field on a batch, as many images at a time as their lists of near tiles allow."""
    tiles = triton.cdiv(images.shape[2] * images.shape[3], BLOCK)
    group = max(MAX_TILE_PAIRS // tiles**2, 1)
    groups = zip(probabilities.float().split(group), images.split(group), strict=True)
    with without_autocast(probabilities):
        return torch.cat(
            [mean_field(p, bilateral_kernel(i, pairwise, tolerance), iterations, pairwise) for p, i in groups]
        )


def mean_field(probabilities: Tensor, bilateral: Bilateral, iterations: int, pairwise: Pairwise) -> Tensor:
    """Alternate messages and softmax on probabilities (B, C, H, W) float32; nothing leaves the device."""
    unary = unary_energy(probabilities).contiguous()
    along_rows, along_columns = (
        matrix.to(MESSAGE_DTYPE) for matrix in gaussian_matrices(unary, pairwise.gaussian_sxy)
    )
    compat = (pairwise.gaussian_compat, pairwise.bilateral_compat)
    gaussian = sums = None
    for left in reversed(range(iterations + 1)):
        dtype = MESSAGE_DTYPE if left else torch.float32
        marginals, values = crf_update(
            unary, gaussian, sums, bilateral.slot, bilateral.scale, *compat, dtype, MESSAGE_DTYPE
        )
        if left:
            gaussian, sums = along_rows @ marginals @ along_columns, bilateral.filter(values)
    return marginals


def bilateral_kernel(images: Tensor, pairwise: Pairwise, tolerance: float) -> Bilateral:
    """Sort the pixels of images (B, 3, H, W) and list which tiles are near each other.

    Raises:
        ValueError: the lists of near tiles do not fit into the device's memory.
    """
    tiles = build_tiles(images, pairwise)
    rows, columns = operands(tiles, images, pairwise)
    try:
        near, counts, scale = near_lists(
            tiles.low, tiles.high, rows, columns, farthest(tolerance), MESSAGE_DTYPE
        )
    except torch.OutOfMemoryError as error:
        batch, _, height, width = images.shape
        raise ValueError(
            f"impl='triton' takes {4 * batch * tiles.low.shape[2] ** 2 / 2**30:.1f} GiB of lists for images "
            f"of {height}x{width}, {batch} at a time, more than the GPU has left; "
            "use 'pydensecrf', or smaller images"
        ) from error
    return Bilateral(rows, columns, near, counts, scale, tiles.slot)


def operands(tiles: Tiles, images: Tensor, pairwise: Pairwise) -> tuple[Tensor, Tensor]:
    """What weights are made of: operands of products where these are exact enough, and else features.

    Columns of slots without a pixel are far from all rows, so that they weigh nothing.
    """
    centre = [images.shape[2] // 2, images.shape[3] // 2, 128, 128, 128]
    reach = [max(c, 1) for c in centre]
    scale = [s**2 for s in feature_scale(pairwise)]
    absent = tiles.order >= tiles.slot.shape[1]
    if not products_suffice(reach, scale):
        return tiles.features, tiles.features.masked_fill(absent[:, None], FAR)
    around = [x - c for x, c in zip(tiles.coordinates.unbind(1), centre, strict=True)]
    return product_operands(torch.stack(around, dim=1), reach, scale, absent)


@torch.library.custom_op("hcl_kernels::crf_near_lists", mutates_args=())
def near_lists(
    low: Tensor,
    high: Tensor,
    rows: Tensor,
    columns: Tensor,
    limit: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """List for every tile the tiles that have a pixel within a squared distance of one of its own.

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
    """Sum the values (B, S, W) of near slots by weight; (B, S, W) float32. The rest as in `Bilateral`."""
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
            num_stages=STAGES,
        )
    return out


@crf_filter.register_fake
def _empty_sums(values: Tensor, rows: Tensor, columns: Tensor, near: Tensor, counts: Tensor) -> Tensor:
    return values.new_empty(values.shape, dtype=torch.float32)


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
    value_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Marginals (B, C, H, W) of unary energy and messages, and these times scale by slot, (B, S, W).

    The Gaussian message is (B, C, H, W), the bilateral sums are (B, S, W); without them there is no message.
    """
    marginals, _ = _empty_update(
        unary, gaussian, sums, slot, scale, gaussian_compat, bilateral_compat, dtype, value_dtype
    )
    batch, classes, height, width = unary.shape
    # What is wider than the classes, and slots without a pixel, are read and weigh nothing.
    values = unary.new_zeros(*scale.shape, value_width(classes), dtype=value_dtype)
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
    value_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    values = unary.new_empty(*scale.shape, value_width(unary.shape[1]), dtype=value_dtype)
    return unary.new_empty(unary.shape, dtype=dtype), values
