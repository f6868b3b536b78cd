"""k-means in Triton: nearest centroid over tiles, and sums of the rows sorted by cluster.

A row's scores against all centroids exist only one tile at a time. Rows are sorted stably by cluster and
summed in fixed pieces in a fixed order, so that the result does not depend on the order of atomics, nor the
balance of the load on the sizes of clusters.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.configurations import CompileCase
from kernels.tl_utils import DOT_PRECISION, POINTERS, TL_DTYPES, load_rows, similarity

# The widest 16-bit rows that stay on the chip while all centroids are streamed.
RESIDENT_WIDTH = 256
# Rows that one program sums: enough to amortise its start, few enough to spread one large cluster.
PIECE_ROWS = 256
SUM_ROWS, SUM_COLUMNS = 32, 128


class Tiles(NamedTuple):
    """Rows, centroids and columns of a tile, warps, and depth of the pipeline."""

    rows: int
    clusters: int
    columns: int
    warps: int
    stages: int


def tiles(width: int, dtype: torch.dtype) -> Tiles:
    """Choose the tiles of the search by the rows' width and the products' dtype."""
    padded = max(triton.next_power_of_2(width), 16)
    if dtype == torch.float32:
        return Tiles(64, 64, min(padded, 32), 4, 2)
    if padded <= RESIDENT_WIDTH:
        return Tiles(128, 64, padded, 4, 2)
    return Tiles(128, 64, 64, 8, 3)


@triton.jit
def nearest_centroid_kernel(
    x_ptr,
    c_ptr,
    square_ptr,
    assignment_ptr,
    N,
    K,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Find argmin_j ||c_j||^2 - 2 x . c_j for BLOCK_N rows; ties go to the first."""
    o_n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_n = o_n < N
    if BLOCK_D >= D:
        b_x = load_rows(x_ptr, o_n, m_n, 0, D, BLOCK_D, DTYPE)
    b_least = tl.full((BLOCK_N,), float("inf"), dtype=tl.float32)
    b_nearest = tl.zeros((BLOCK_N,), dtype=tl.int32)
    for start in range(0, K, BLOCK_K):
        o_k = start + tl.arange(0, BLOCK_K)
        m_k = o_k < K
        if BLOCK_D >= D:
            b_c = load_rows(c_ptr, o_k, m_k, 0, D, BLOCK_D, DTYPE)
            b_products = tl.dot(b_x, b_c.T, input_precision=PRECISION)
        else:
            b_products = similarity(x_ptr, o_n, m_n, c_ptr, o_k, m_k, D, BLOCK_D, DTYPE, PRECISION)
        b_square = tl.load(square_ptr + o_k, mask=m_k, other=float("inf"))
        b_score = b_square[None, :] - 2 * b_products
        b_tile_least, b_tile_nearest = tl.min(b_score, axis=1, return_indices=True)
        closer = b_tile_least < b_least
        b_nearest = tl.where(closer, start + b_tile_nearest, b_nearest)
        b_least = tl.where(closer, b_tile_least, b_least)
    tl.store(assignment_ptr + o_n, b_nearest.to(tl.int64), mask=m_n)


@triton.jit
def segment_sums_kernel(
    x_ptr,
    order_ptr,
    begin_ptr,
    end_ptr,
    weight_ptr,
    sum_ptr,
    square_ptr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sum rows order[begin:end] and their squares, times weights if any: BLOCK_D columns per program."""
    i_segment = tl.program_id(0).to(tl.int64)
    i_d = tl.program_id(1)
    o_d = i_d * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = tl.load(begin_ptr + i_segment)
    end = tl.load(end_ptr + i_segment)
    b_sum = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float64)
    b_square = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float64)
    for start in range(begin, end, BLOCK_N):
        o_n = start + tl.arange(0, BLOCK_N)
        m_n = o_n < end
        o_rows = tl.load(order_ptr + o_n, mask=m_n, other=0)
        b_x = load_rows(x_ptr, o_rows, m_n, i_d * BLOCK_D, D, BLOCK_D, tl.float64)
        b_counted = b_x
        if weight_ptr is not None:
            b_weight = tl.load(weight_ptr + o_rows, mask=m_n, other=0).to(tl.float64)
            b_counted = b_x * b_weight[:, None]
        b_sum += b_counted
        b_square += b_counted * b_x
    tl.store(sum_ptr + i_segment * D + o_d, tl.sum(b_sum, axis=0), mask=o_d < D)
    tl.store(square_ptr + i_segment * tl.num_programs(1) + i_d, tl.sum(tl.sum(b_square, axis=1), axis=0))


@torch.library.custom_op("hcl_kernels::nearest_centroid", mutates_args=())
def nearest_centroid(x: Tensor, centroids: Tensor) -> Tensor:
    """Find the nearest of centroids (K, D) for every row of x (N, D). (N,) int64."""
    dtype = torch.promote_types(x.dtype, centroids.dtype)
    x, centroids = x.contiguous(), centroids.contiguous()
    width = x.shape[1]
    tile = tiles(width, dtype)
    assignment = torch.empty(len(x), dtype=torch.int64, device=x.device)
    with torch.cuda.device_of(x):
        nearest_centroid_kernel[(triton.cdiv(len(x), tile.rows),)](
            x,
            centroids,
            centroids.float().square().sum(dim=1),
            assignment,
            len(x),
            len(centroids),
            **_search_constants(width, dtype),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return assignment


@nearest_centroid.register_fake
def _(x: Tensor, centroids: Tensor) -> Tensor:
    return x.new_empty(len(x), dtype=torch.int64)


def _search_constants(width: int, dtype: torch.dtype) -> dict[str, object]:
    tile = tiles(width, dtype)
    return {
        "D": width,
        "BLOCK_N": tile.rows,
        "BLOCK_K": tile.clusters,
        "BLOCK_D": tile.columns,
        "DTYPE": TL_DTYPES[dtype],
        "PRECISION": DOT_PRECISION,
    }


@torch.library.custom_op("hcl_kernels::segment_sums", mutates_args=())
def segment_sums(
    x: Tensor, order: Tensor, begin: Tensor, end: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum rows x[order[begin_s:end_s]] of every segment s. Sums (S, D) and squared norms (S,), float64."""
    x = x.contiguous()
    weights = None if weights is None else weights.contiguous()
    segments, width = len(begin), x.shape[1]
    chunks = triton.cdiv(width, SUM_COLUMNS)
    sums = torch.empty(segments, width, dtype=torch.float64, device=x.device)
    squares = torch.empty(segments, chunks, dtype=torch.float64, device=x.device)
    with torch.cuda.device_of(x):
        segment_sums_kernel[(segments, chunks)](
            x, order, begin, end, weights, sums, squares, D=width, BLOCK_N=SUM_ROWS, BLOCK_D=SUM_COLUMNS
        )
    return sums, squares.sum(dim=1)


@segment_sums.register_fake
def _(x: Tensor, order: Tensor, begin: Tensor, end: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    sums = x.new_empty(len(begin), x.shape[1], dtype=torch.float64)
    return sums, x.new_empty(len(begin), dtype=torch.float64)


def cluster_sums(
    x: Tensor, assignment: Tensor, clusters: int, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum and count the rows of every cluster, (K, D) float64 and (K,) int64; negative: no cluster."""
    # Checked on the device, as the reference's indices are, so that the host does not wait.
    torch._assert_async((assignment < clusters).all(), "index out of bounds: an assignment of K or more")
    sums, counts, _ = _sums_and_squares(x, assignment, clusters, weights)
    return sums, counts


def lloyd_step(x: Tensor, centroids: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Assign every row, then sum. Assignment, sums, counts and inertia."""
    assignment = nearest_centroid(x, centroids)
    sums, counts, squares = _sums_and_squares(x, assignment, len(centroids), weights)
    c = centroids.double()
    inertia = squares - 2 * (c * sums).sum() + (c.square().sum(dim=1) * counts).sum()
    return assignment, sums, counts, inertia.clamp(min=0)


def _sums_and_squares(
    x: Tensor, assignment: Tensor, clusters: int, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum pieces of at most PIECE_ROWS rows of one cluster, then every cluster's pieces."""
    # 32 bits halve the passes of the radix sort.
    sorted_ids, order = assignment.clamp(min=-1).int().sort(stable=True)
    ids = torch.arange(clusters, dtype=torch.int32, device=x.device)
    begin = torch.searchsorted(sorted_ids, ids)
    end = torch.searchsorted(sorted_ids, ids, right=True)
    rows = end - begin
    last_piece = ((rows + PIECE_ROWS - 1) // PIECE_ROWS).cumsum(dim=0)
    first_piece = torch.nn.functional.pad(last_piece[:-1], (1, 0))
    # The largest possible number of pieces: it must not depend on the data.
    pieces = torch.arange(len(x) // PIECE_ROWS + clusters, device=x.device)
    owner = torch.searchsorted(last_piece, pieces, right=True).clamp(max=clusters - 1)
    piece_begin = begin[owner] + (pieces - first_piece[owner]) * PIECE_ROWS
    piece_end = torch.minimum(piece_begin + PIECE_ROWS, end[owner])
    partial, squares = segment_sums(x, order, piece_begin, piece_end, weights)
    sums, _ = segment_sums(partial, pieces, first_piece, last_piece, None)
    if weights is None:
        return sums, rows, squares.sum()
    until = torch.nn.functional.pad(weights[order].cumsum(dim=0), (1, 0))
    return sums, until[end] - until[begin], squares.sum()


def compile_cases() -> list[CompileCase]:
    """List every kernel at every configuration that the documented sizes choose."""
    searches = [_search_case(width, dtype) for dtype in POINTERS for width in (100, 256, 384, 768, 1024)]
    sums = [_sum_case(width, kind) for kind in (*POINTERS.values(), "*fp64") for width in (100, 256, 1024)]
    return [*searches, *sums, _sum_case(100, "*fp32", weighted=True)]


def _search_case(width: int, dtype: torch.dtype) -> CompileCase:
    tile, constants = tiles(width, dtype), _search_constants(width, dtype)
    pointer = POINTERS[dtype]
    signature = {"x_ptr": pointer, "c_ptr": pointer, "square_ptr": "*fp32", "assignment_ptr": "*i64"}
    signature |= {"N": "i32", "K": "i32"} | dict.fromkeys(constants, "constexpr")
    name = f"nearest_centroid D={width} {pointer[1:]}"
    return CompileCase(name, nearest_centroid_kernel, signature, constants, tile.warps, tile.stages)


def _sum_case(width: int, pointer: str, *, weighted: bool = False) -> CompileCase:
    constants: dict[str, object] = {"D": width, "BLOCK_N": SUM_ROWS, "BLOCK_D": SUM_COLUMNS}
    if not weighted:
        constants["weight_ptr"] = None
    signature = {"x_ptr": pointer} | dict.fromkeys(
        ("order_ptr", "begin_ptr", "end_ptr", "weight_ptr"), "*i64"
    )
    signature |= {"sum_ptr": "*fp64", "square_ptr": "*fp64"} | dict.fromkeys(constants, "constexpr")
    name = f"segment_sums D={width} {pointer[1:]}{' weighted' if weighted else ''}"
    return CompileCase(name, segment_sums_kernel, signature, constants, 4, 3)
