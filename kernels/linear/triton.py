"""Linear layers in Triton: the product with GELU in its epilogue, for frozen weights.

With GELU in a separate pass, the product would be written, read and written again. The weight stays in the L2
cache, and tiles of the same rows follow one another, so that rows are read from memory once.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kernels.configurations import NOT_ROOMY, ROOMY, CompileCase
from kernels.tl_utils import POINTERS, shared_memory

# Minimax polynomial of log2 Q, with Q the upper tail of the normal distribution, highest power first. 1 - Q,
# and so GELU, has a relative error of 2^-18, a sixtieth of float16's rounding. erf would take twice the
# instructions, which the product does not hide.
LOG2_TAIL = (
    -1.7060013988157152e-06,
    5.9476613387232646e-05,
    -0.0009170262492261827,
    0.00846615619957447,
    -0.05389542505145073,
    -0.4585106670856476,
    -1.151239037513733,
    -0.9999958276748657,
)


class Tiles(NamedTuple):
    """Rows, outputs and inputs of a tile, warps, depth of the pipeline, rows of tiles in a group.

    `programs` is the number of programs that a multiprocessor holds at once.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    group: int
    programs: int


LARGE, SMALL = Tiles(128, 256, 64, 8, 3, 1, 1), Tiles(128, 128, 32, 8, 3, 1, 2)
LARGE_SHARED = 176 * 1024


def tiles(shared: int) -> Tiles:
    """Choose the tiles by the bytes of shared memory that a block can use: large tiles load less often."""
    return LARGE if shared >= LARGE_SHARED else SMALL


@triton.jit
def linear_gelu_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    LOG2_TAIL: tl.constexpr,
):
    """Compute GELU(x W^T + b), x (M, K) and W (N, K), in tiles (BLOCK_M, BLOCK_N) shared among programs."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    o_m = tl.arange(0, BLOCK_M)
    o_n = tl.arange(0, BLOCK_N)
    # Flattened, so that the next tile is loaded while this one goes through GELU.
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True):
        i_m, i_n = place_of(tile, tiles_m, tiles_n, GROUP)
        left_m, left_n = M - i_m * BLOCK_M, N - i_n * BLOCK_N
        # 64 bits where a tile begins, 32 within: rows x width may exceed 2^31.
        first_m, first_n = i_m.to(tl.int64) * BLOCK_M, i_n.to(tl.int64) * BLOCK_N
        # Beyond the last row, that row is read again and not stored, so that loads in the loop need no mask.
        read_m = tl.minimum(o_m, left_m - 1)
        read_n = o_n
        if N % BLOCK_N != 0:
            read_n = tl.minimum(o_n, left_n - 1)
        b_sum = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for start in range(0, K, BLOCK_K):
            b_x = load_columns(x_ptr + first_m * K, read_m, start, K, BLOCK_K)
            b_w = load_columns(weight_ptr + first_n * K, read_n, start, K, BLOCK_K)
            b_sum = tl.dot(b_x, b_w.T, b_sum)
        b_bias = tl.load(bias_ptr + first_n + read_n).to(tl.float32)
        b_out = gelu(b_sum + b_bias[None, :], LOG2_TAIL).to(out_ptr.dtype.element_ty)
        mask = (o_m < left_m)[:, None]
        if N % BLOCK_N != 0:
            mask = mask & (o_n < left_n)[None, :]
        tl.store(out_ptr + first_m * N + first_n + o_m[:, None] * N + o_n[None, :], b_out, mask=mask)


@triton.jit
def place_of(tile, tiles_m, tiles_n, GROUP: tl.constexpr):
    """Return row and column of a tile: GROUP rows of tiles with all columns, then the next GROUP rows."""
    group = tile // (GROUP * tiles_n)
    within = tile % (GROUP * tiles_n)
    size = tl.minimum(tiles_m - group * GROUP, GROUP)
    return group * GROUP + within % size, within // size


@triton.jit
def load_columns(ptr, o_rows, start, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Load BLOCK columns from `start` on, of rows of WIDTH columns; 0 out of bounds."""
    o_columns = start + tl.arange(0, BLOCK)
    pointers = ptr + o_rows[:, None] * WIDTH + o_columns[None, :]
    if WIDTH % BLOCK == 0:
        return tl.load(pointers)
    return tl.load(pointers, mask=(o_columns < WIDTH)[None, :], other=0.0)


@triton.jit
def gelu(x, LOG2_TAIL: tl.constexpr):
    """GELU by erf: max(x, 0) - |x| Q(|x|), where log2 Q is a polynomial; Q(x) = erfc(x / sqrt 2) / 2."""
    # Q(16) is 0 in float32; capped, |x| Q is not NaN where x is infinite. The maximum below keeps NaN.
    b_size = tl.minimum(tl.abs(x), 16.0)
    b_log = tl.full(x.shape, LOG2_TAIL[0], tl.float32)
    for i in tl.static_range(1, len(LOG2_TAIL)):
        b_log = b_log * b_size + LOG2_TAIL[i]
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - b_size * tl.exp2(b_log)


@torch.library.custom_op("hcl_kernels::linear_gelu", mutates_args=())
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute GELU(x W^T + b) of x (..., K), W (N, K) and b (N,), all float16 or all bfloat16."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    outer, inner = weight.shape
    out = torch.empty(*x.shape[:-1], outer, dtype=x.dtype, device=x.device)
    rows = x.numel() // inner
    if not rows:
        return out
    shared, processors = _resources(x.device)
    tile = tiles(shared)
    count = triton.cdiv(rows, tile.block_m) * triton.cdiv(outer, tile.block_n)
    with torch.cuda.device_of(x):
        linear_gelu_kernel[(min(count, processors * tile.programs),)](
            x,
            weight,
            bias,
            out,
            rows,
            **_constants(tile, inner, outer),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return out


@register_flop_formula(torch.ops.hcl_kernels.linear_gelu)
def _flops(x: torch.Size, weight: torch.Size, *others: object, **named: object) -> int:
    """Count the operations of the product, as torch does for its own."""
    return 2 * x.numel() * weight[0]


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def _resources(device: torch.device) -> tuple[int, int]:
    """Return a block's shared memory in bytes, and the multiprocessors; the least for the interpreter."""
    if device.type != "cuda":
        return 0, 1
    return shared_memory(device), torch.cuda.get_device_properties(device).multi_processor_count


def _constants(tile: Tiles, inner: int, outer: int) -> dict[str, object]:
    return {
        "N": outer,
        "K": inner,
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "GROUP": tile.group,
        "LOG2_TAIL": LOG2_TAIL,
    }


def compile_cases() -> list[CompileCase]:
    """List the MLPs of ViT-S, B and L, with the tiles for little shared memory and for much."""
    return [
        _case(tile, width, dtype, targets)
        for tile, targets in ((SMALL, NOT_ROOMY), (LARGE, ROOMY))
        for width in (384, 768, 1024)
        for dtype in (torch.float16, torch.bfloat16)
    ]


def _case(tile: Tiles, width: int, dtype: torch.dtype, targets: tuple[str, ...]) -> CompileCase:
    constants, pointer = _constants(tile, width, 4 * width), POINTERS[dtype]
    signature = dict.fromkeys(("x_ptr", "weight_ptr", "bias_ptr", "out_ptr"), pointer)
    signature |= {"M": "i32"} | dict.fromkeys(constants, "constexpr")
    name = f"linear_gelu {width}->{4 * width} {tile.block_m}x{tile.block_n} {pointer[1:]}"
    return CompileCase(name, linear_gelu_kernel, signature, constants, tile.warps, tile.stages, targets)
