"""The device code of the dense CRF: lists of near tiles, the filter over them, and a step of mean field.

Weights are exp2 of an exponent, which is minus the squared distance of two pixels. They are computed on the
fly: by the matrix units, as products of the pixels' `operands`, or from differences.
"""

import triton
import triton.language as tl

PARTS = tl.constexpr(16)


@triton.jit
def load_rows(row_ptr, i_tile, S, BLOCK: tl.constexpr, PRODUCTS: tl.constexpr):
    """Load a tile of rows for `exponents`: coarse and fine operands, or five features."""
    o_m = i_tile * BLOCK + tl.arange(0, BLOCK)
    if PRODUCTS:
        p_rows = row_ptr + o_m[:, None] * (2 * PARTS) + tl.arange(0, PARTS)[None, :]
        rows = (tl.load(p_rows), tl.load(p_rows + PARTS))
    else:
        rows = load_features(row_ptr, o_m, S)
    return rows


@triton.jit
def load_features(feature_ptr, o_slots, S):
    """Load row, column, red, green and blue of slots."""
    return (
        tl.load(feature_ptr + o_slots),
        tl.load(feature_ptr + S + o_slots),
        tl.load(feature_ptr + 2 * S + o_slots),
        tl.load(feature_ptr + 3 * S + o_slots),
        tl.load(feature_ptr + 4 * S + o_slots),
    )


@triton.jit
def exponents(rows, column_ptr, i_tile, S, BLOCK: tl.constexpr, PRODUCTS: tl.constexpr):
    """Compute minus the squared distances of a tile's pixels (second axis) to those of the rows."""
    o_n = tl.arange(0, BLOCK)
    if PRODUCTS:
        p_columns = column_ptr + i_tile.to(tl.int64) * (BLOCK * PARTS)
        b_columns = tl.load(p_columns + o_n[:, None] * PARTS + tl.arange(0, PARTS)[None, :])
        # The coarse products cancel and are exact; first, so that the rest is added to a small number.
        b_exponent = tl.dot(rows[0], b_columns.T)
        b_exponent = tl.dot(rows[1], b_columns.T, b_exponent)
    else:
        columns = load_features(column_ptr + i_tile * BLOCK, o_n, S)
        b_exponent = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        for i in tl.static_range(5):
            b_difference = rows[i][:, None] - columns[i][None, :]
            b_exponent -= b_difference * b_difference
    return b_exponent


@triton.jit
def crf_near_kernel(near_ptr, count_ptr, low_ptr, high_ptr, T, farthest, BLOCK_T: tl.constexpr):
    """List the tiles whose bounding boxes are within `farthest`, a squared distance, of a tile's."""
    i_tile = tl.program_id(0)
    i_image = tl.program_id(1).to(tl.int64)
    near_ptr += (i_image * T + i_tile) * T
    low_ptr += i_image * 5 * T
    high_ptr += i_image * 5 * T
    count = 0
    for start in range(0, T, BLOCK_T):
        o_t = start + tl.arange(0, BLOCK_T)
        m_t = o_t < T
        b_distance = tl.zeros((BLOCK_T,), dtype=tl.float32)
        for i in tl.static_range(5):
            b_above = tl.load(low_ptr + i * T + o_t, mask=m_t) - tl.load(high_ptr + i * T + i_tile)
            b_below = tl.load(low_ptr + i * T + i_tile) - tl.load(high_ptr + i * T + o_t, mask=m_t)
            b_gap = tl.maximum(tl.maximum(b_above, b_below), 0.0)
            b_distance += b_gap * b_gap
        m_near = m_t & (b_distance <= farthest)
        b_rank = tl.cumsum(m_near.to(tl.int32), axis=0)
        tl.store(near_ptr + count + b_rank - 1, o_t, mask=m_near)
        count += tl.max(b_rank, axis=0)
    tl.store(count_ptr + i_image * T + i_tile, count)


@triton.jit
def crf_sums_kernel(
    scale_ptr,
    near_ptr,
    count_ptr,
    row_ptr,
    column_ptr,
    S,
    farthest,
    BLOCK: tl.constexpr,
    PRODUCTS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Invert the root of a tile's row sums, and keep in its list only the tiles with a near pixel."""
    i_tile = tl.program_id(0)
    i_image = tl.program_id(1).to(tl.int64)
    T = S // BLOCK
    near_ptr += (i_image * T + i_tile) * T
    count_ptr += i_image * T + i_tile
    row_ptr += i_image * S * (2 * PARTS if PRODUCTS else 5)
    column_ptr += i_image * S * (PARTS if PRODUCTS else 5)
    rows = load_rows(row_ptr, i_tile, S, BLOCK, PRODUCTS)
    b_sum = tl.zeros((BLOCK,), dtype=tl.float32)
    left = 0
    for i_near in range(tl.load(count_ptr)):
        i_column = tl.load(near_ptr + i_near)
        b_exponent = exponents(rows, column_ptr, i_column, S, BLOCK, PRODUCTS)
        stays = tl.max(b_exponent) >= -farthest
        b_weight = tl.exp2(b_exponent).to(DTYPE).to(tl.float32)
        b_sum += tl.where(stays, tl.sum(b_weight, axis=1), 0.0)
        # What this overwrites has been read: the maximum synchronises all threads.
        tl.store(near_ptr + left, i_column)
        left += stays.to(tl.int32)
    tl.store(count_ptr, left)
    tl.store(scale_ptr + i_image * S + i_tile * BLOCK + tl.arange(0, BLOCK), tl.rsqrt(b_sum))


@triton.jit
def crf_filter_kernel(
    out_ptr,
    value_ptr,
    row_ptr,
    column_ptr,
    near_ptr,
    count_ptr,
    S,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRODUCTS: tl.constexpr,
):
    """Sum the values of near slots by weight, for the slots of a tile and BLOCK_C classes."""
    i_tile = tl.program_id(0)
    i_image = tl.program_id(2).to(tl.int64)
    T = S // BLOCK
    o_m = tl.arange(0, BLOCK)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = (o_c < WIDTH)[None, :]
    o_values = o_m[:, None] * WIDTH + o_c[None, :]
    near_ptr += (i_image * T + i_tile) * T
    value_ptr += i_image * S * WIDTH
    row_ptr += i_image * S * (2 * PARTS if PRODUCTS else 5)
    column_ptr += i_image * S * (PARTS if PRODUCTS else 5)
    rows = load_rows(row_ptr, i_tile, S, BLOCK, PRODUCTS)
    b_sum = tl.zeros((BLOCK, BLOCK_C), dtype=tl.float32)
    for i_near in range(tl.load(count_ptr + i_image * T + i_tile)):
        i_column = tl.load(near_ptr + i_near)
        b_exponent = exponents(rows, column_ptr, i_column, S, BLOCK, PRODUCTS)
        p_values = value_ptr + i_column.to(tl.int64) * (BLOCK * WIDTH)
        b_value = tl.load(p_values + o_values, mask=m_c, other=0.0)
        b_weight = tl.exp2(b_exponent).to(b_value.dtype)
        b_sum = tl.dot(b_weight, b_value, b_sum, input_precision="ieee")
    tl.store(out_ptr + (i_image * S + i_tile * BLOCK) * WIDTH + o_values, b_sum, mask=m_c)


@triton.jit
def crf_update_kernel(
    out_ptr,
    value_ptr,
    unary_ptr,
    gaussian_ptr,
    sum_ptr,
    slot_ptr,
    scale_ptr,
    gaussian_compat,
    bilateral_compat,
    C,
    N,
    S,
    WIDTH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MESSAGES: tl.constexpr,
):
    """Compute marginals of BLOCK_N pixels from their messages, and by slot what is filtered next."""
    i_image = tl.program_id(1).to(tl.int64)
    o_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    o_c = tl.arange(0, BLOCK_C)
    m_n = o_n < N
    m_c = (o_c < C)[None, :]
    mask = m_n[:, None] & m_c
    o_pixels = i_image * C * N + o_c[None, :] * N + o_n[:, None]
    b_slot = i_image * S + tl.load(slot_ptr + i_image * N + o_n, mask=m_n, other=0)
    b_scale = tl.load(scale_ptr + b_slot)[:, None]
    o_slots = b_slot[:, None] * WIDTH + o_c[None, :]
    b_logit = -tl.load(unary_ptr + o_pixels, mask=mask, other=0.0)
    if MESSAGES:
        b_logit += gaussian_compat * tl.load(gaussian_ptr + o_pixels, mask=mask, other=0.0)
        b_logit += bilateral_compat * b_scale * tl.load(sum_ptr + o_slots, mask=mask, other=0.0)
    b_logit = tl.where(m_c, b_logit, float("-inf"))
    b_power = tl.exp(b_logit - tl.max(b_logit, axis=1)[:, None])
    b_marginal = b_power / tl.sum(b_power, axis=1)[:, None]
    tl.store(out_ptr + o_pixels, b_marginal, mask=mask)
    b_value = (b_scale * b_marginal).to(value_ptr.dtype.element_ty)
    tl.store(value_ptr + o_slots, b_value, mask=mask)


@triton.jit
def crf_gaussian_kernel(
    out_ptr,
    value_ptr,
    weight_ptr,
    L,
    M,
    stride_l,
    stride_m,
    reach,
    BLOCK_L: tl.constexpr,
    BLOCK_M: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Filter a plane's M lines of L pixels by a banded matrix of weights (L, L) of half-width `reach`."""
    i_plane = tl.program_id(0).to(tl.int64)
    begin = tl.program_id(1) * BLOCK_L
    o_l = begin + tl.arange(0, BLOCK_L)
    o_m = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_m = (o_m < M)[None, :]
    value_ptr += i_plane * L * M
    b_sum = tl.zeros((BLOCK_L, BLOCK_M), dtype=tl.float32)
    first = tl.maximum(begin - reach, 0) // BLOCK_L * BLOCK_L
    for start in range(first, tl.minimum(begin + BLOCK_L + reach, L), BLOCK_L):
        o_k = start + tl.arange(0, BLOCK_L)
        m_weight = (o_l < L)[:, None] & (o_k < L)[None, :]
        b_weight = tl.load(
            weight_ptr + o_l.to(tl.int64)[:, None] * L + o_k[None, :], mask=m_weight, other=0.0
        )
        p_value = value_ptr + o_k[:, None] * stride_l + o_m[None, :] * stride_m
        b_value = tl.load(p_value, mask=(o_k < L)[:, None] & m_m, other=0.0)
        b_sum = tl.dot(b_weight, b_value, b_sum, input_precision=PRECISION)
    p_out = out_ptr + i_plane * L * M + o_l[:, None] * stride_l + o_m[None, :] * stride_m
    tl.store(p_out, b_sum, mask=(o_l < L)[:, None] & m_m)
