"""The exact dense CRF in Triton: one kernel for the bilateral filter, torch for what is cheap beside it.

The bilateral filter is attention without softmax: the weights of two tiles of pixels are computed where they
are used and multiplied with the messages of all classes; tile pairs that are far apart are not visited.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import CompileCase
from kernels.crf.energy import Pairwise
from kernels.crf.mean_field import Filter, mean_field
from kernels.crf.tiles import BLOCK, build_tiles, near_lists
from kernels.dispatch import TRITON_INTERPRETED
from kernels.precision import without_autocast

WARPS = 4
STAGES = 3
# Messages and weights lie in [0, 1] and are summed in float32, where errors of 2^-11 average out.
MESSAGE_DTYPE = torch.float32 if TRITON_INTERPRETED else torch.float16
# Images are taken as many at a time as have this many tile pairs (4 bytes each), but at least one.
MAX_TILE_PAIRS = 2**27


@triton.jit
def load_features(feature_ptr, o_slots, S):
    """Row, column, red, green and blue of slots."""
    return (
        tl.load(feature_ptr + o_slots),
        tl.load(feature_ptr + S + o_slots),
        tl.load(feature_ptr + 2 * S + o_slots),
        tl.load(feature_ptr + 3 * S + o_slots),
        tl.load(feature_ptr + 4 * S + o_slots),
    )


@triton.jit
def crf_filter_kernel(
    out_ptr,
    value_ptr,
    feature_ptr,
    near_ptr,
    count_ptr,
    C,
    S,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum the values of near slots, times exp2(-distance^2), for the slots of a tile and BLOCK_C classes."""
    i_tile = tl.program_id(0)
    i_image = tl.program_id(2).to(tl.int64)
    tiles = S // BLOCK
    o_m = i_tile * BLOCK + tl.arange(0, BLOCK)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = (o_c < C)[:, None]
    feature_ptr += i_image * 5 * S
    value_ptr += i_image * C * S
    near_ptr += (i_image * tiles + i_tile) * tiles
    rows = load_features(feature_ptr, o_m, S)
    b_sum = tl.zeros((BLOCK, BLOCK_C), dtype=tl.float32)
    for i_near in range(tl.load(count_ptr + i_image * tiles + i_tile)):
        o_n = tl.load(near_ptr + i_near) * BLOCK + tl.arange(0, BLOCK)
        columns = load_features(feature_ptr, o_n, S)
        b_distance = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        for i in tl.static_range(5):
            b_difference = rows[i][:, None] - columns[i][None, :]
            b_distance += b_difference * b_difference
        b_value = tl.load(value_ptr + o_c[:, None] * S + o_n[None, :], mask=m_c, other=0.0)
        b_weight = tl.exp2(-b_distance).to(b_value.dtype)
        b_sum = tl.dot(b_weight, b_value.T, b_sum, input_precision="ieee")
    tl.store(out_ptr + i_image * C * S + o_c[:, None] * S + o_m[None, :], b_sum.T, mask=m_c)


def dense_crf(
    probabilities: Tensor, images: Tensor, iterations: int, pairwise: Pairwise, tolerance: float
) -> Tensor:
    """Mean field on a batch, as many images at a time as their lists of near tiles allow."""
    tiles = triton.cdiv(images.shape[2] * images.shape[3], BLOCK)
    group = max(MAX_TILE_PAIRS // tiles**2, 1)
    groups = zip(probabilities.float().split(group), images.split(group), strict=True)
    with without_autocast(probabilities):
        return torch.cat(
            [mean_field(p, bilateral_filter(i, pairwise, tolerance), iterations, pairwise) for p, i in groups]
        )


def bilateral_filter(images: Tensor, pairwise: Pairwise, tolerance: float) -> Filter:
    """Sort the pixels of images (B, 3, H, W) and give the filter over them.

    Raises:
        ValueError: the lists of near tiles do not fit into the device's memory.
    """
    tiles = build_tiles(images, pairwise)
    try:
        near, count = near_lists(tiles, tolerance)
    except torch.OutOfMemoryError as error:
        batch, _, height, width = images.shape
        raise ValueError(
            f"impl='triton' takes {4 * batch * tiles.low.shape[2] ** 2 / 2**30:.1f} GiB of lists for images "
            f"of {height}x{width}, {batch} at a time, more than the GPU has left; "
            "use 'pydensecrf', or smaller images"
        ) from error

    def bilateral(values: Tensor) -> Tensor:
        slots = tiles.gather(values.flatten(2)).to(MESSAGE_DTYPE)
        return tiles.scatter(crf_filter(slots, tiles.features, near, count)).view(values.shape)

    return bilateral


@torch.library.custom_op("hcl_kernels::crf_filter", mutates_args=())
def crf_filter(values: Tensor, features: Tensor, near: Tensor, count: Tensor) -> Tensor:
    """Sum the values of near slots by weight. values (B, C, S), features (B, 5, S); (B, C, S) float32."""
    batch, classes, slots = values.shape
    out = _empty_sums(values, features, near, count)
    block_c = class_block(classes)
    with torch.cuda.device_of(out):
        crf_filter_kernel[(slots // BLOCK, triton.cdiv(classes, block_c), batch)](
            out,
            values.contiguous(),
            features.contiguous(),
            near.contiguous(),
            count.contiguous(),
            classes,
            slots,
            BLOCK=BLOCK,
            BLOCK_C=block_c,
            num_warps=WARPS,
            num_stages=STAGES,
        )
    return out


@crf_filter.register_fake
def _empty_sums(values: Tensor, features: Tensor, near: Tensor, count: Tensor) -> Tensor:
    return values.new_empty(values.shape, dtype=torch.float32)


def class_block(classes: int) -> int:
    """How many classes a program sums: all of them, up to 64."""
    return min(max(triton.next_power_of_2(classes), 16), 64)


def compile_cases() -> list[CompileCase]:
    """The kernel for one class (the row sums), the 21 and 27 classes of the data sets, and many."""
    return [_case(classes) for classes in (1, 27, 171)]


def _case(classes: int) -> CompileCase:
    constants: dict[str, object] = {"BLOCK": BLOCK, "BLOCK_C": class_block(classes)}
    signature = {
        "out_ptr": "*fp32",
        "value_ptr": "*fp16",
        "feature_ptr": "*fp32",
        "near_ptr": "*i32",
        "count_ptr": "*i32",
        "C": "i32",
        "S": "i32:16",
        **dict.fromkeys(constants, "constexpr"),
    }
    name = f"crf_filter_kernel C={classes} fp16"
    return CompileCase(name, crf_filter_kernel, signature, constants, WARPS, STAGES)
