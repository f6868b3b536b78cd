"""The device code of the contrastive loss: one pass over a token tile's own bank, forward and backward.

Both products of the forward pass use the same raw centroids; their lengths scale the logits afterwards.
In kernels: `i_` index, `o_` offsets, `m_` mask, `b_` block of values, `_ptr` pointer.
"""

import math

import triton
import triton.language as tl

from kernels.tl_utils import load_rows, similarity

LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _bank(i_tile, count_fg_ptr, K_fg, K, BLOCK_M: tl.constexpr):
    """Return whether a tile is of the foreground, and where its bank's centroids begin and end."""
    in_fg = i_tile * BLOCK_M < tl.load(count_fg_ptr)
    begin = tl.where(in_fg, 0, K_fg)
    end = tl.where(in_fg, K_fg, K)
    return in_fg, begin, end


@triton.jit
def fba_fwd_kernel(
    q_ptr,
    k_ptr,
    token_ptr,
    count_fg_ptr,
    c_ptr,
    square_ptr,
    scale_ptr,
    loss_ptr,
    assignment_ptr,
    lse_ptr,
    M,
    K_fg,
    K,
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Nearest centroid of k, log-sum-exp (base 2) and positive logit of q, for BLOCK_M tokens of one bank."""
    i_tile = tl.program_id(0)
    in_fg, begin, end = _bank(i_tile, count_fg_ptr, K_fg, K, BLOCK_M)
    o_m = tl.load(token_ptr + i_tile.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M))
    m_m = o_m < M
    if BLOCK_C >= C:
        b_q = load_rows(q_ptr, o_m, m_m, 0, C, BLOCK_C, DTYPE)
        b_k = load_rows(k_ptr, o_m, m_m, 0, C, BLOCK_C, DTYPE)
    b_least = tl.full((BLOCK_M,), float("inf"), dtype=tl.float32)
    b_nearest = tl.zeros((BLOCK_M,), dtype=tl.int32)
    b_positive = tl.zeros((BLOCK_M,), dtype=tl.float32)
    b_max = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    b_sum = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(begin, end, BLOCK_K):
        o_k = start + tl.arange(0, BLOCK_K)
        m_k = o_k < end
        if BLOCK_C >= C:
            b_c = load_rows(c_ptr, o_k, m_k, 0, C, BLOCK_C, DTYPE)
            b_kc = tl.dot(b_k, b_c.T, input_precision=PRECISION)
            b_qc = tl.dot(b_q, b_c.T, input_precision=PRECISION)
        else:
            b_kc = tl.zeros((BLOCK_M, BLOCK_K), dtype=tl.float32)
            b_qc = tl.zeros((BLOCK_M, BLOCK_K), dtype=tl.float32)
            for o_c in range(0, C, BLOCK_C):
                b_c = load_rows(c_ptr, o_k, m_k, o_c, C, BLOCK_C, DTYPE)
                b_k = load_rows(k_ptr, o_m, m_m, o_c, C, BLOCK_C, DTYPE)
                b_kc = tl.dot(b_k, b_c.T, b_kc, input_precision=PRECISION)
                b_q = load_rows(q_ptr, o_m, m_m, o_c, C, BLOCK_C, DTYPE)
                b_qc = tl.dot(b_q, b_c.T, b_qc, input_precision=PRECISION)
        b_square = tl.load(square_ptr + o_k, mask=m_k, other=float("inf"))
        b_scale = tl.load(scale_ptr + o_k, mask=m_k, other=0.0)
        b_logits = tl.where(m_k[None, :], b_qc * b_scale[None, :], float("-inf"))
        b_tile_least, b_tile_nearest = tl.min(b_square[None, :] - 2 * b_kc, axis=1, return_indices=True)
        own = tl.arange(0, BLOCK_K)[None, :] == b_tile_nearest[:, None]
        b_tile_positive = tl.sum(tl.where(own, b_logits, 0.0), axis=1)
        closer = b_tile_least < b_least
        b_least = tl.where(closer, b_tile_least, b_least)
        b_nearest = tl.where(closer, start - begin + b_tile_nearest, b_nearest)
        b_positive = tl.where(closer, b_tile_positive, b_positive)
        b_new_max = tl.maximum(b_max, tl.max(b_logits, axis=1))
        b_sum = b_sum * tl.exp2(b_max - b_new_max) + tl.sum(tl.exp2(b_logits - b_new_max[:, None]), axis=1)
        b_max = b_new_max
    b_lse = b_max + tl.log2(b_sum)
    tl.store(assignment_ptr + o_m, b_nearest.to(tl.int64), mask=m_m)
    tl.store(lse_ptr + o_m, b_lse, mask=m_m)
    loss = tl.sum(tl.where(m_m, (b_lse - b_positive) * LN_2, 0.0), axis=0)
    tl.store(loss_ptr + i_tile * 2, tl.where(in_fg, loss, 0.0))
    tl.store(loss_ptr + i_tile * 2 + 1, tl.where(in_fg, 0.0, loss))


@triton.jit
def fba_bwd_kernel(
    grad_loss_ptr,
    q_ptr,
    token_ptr,
    count_fg_ptr,
    c_ptr,
    scale_ptr,
    assignment_ptr,
    lse_ptr,
    grad_q_ptr,
    M,
    K_fg,
    K,
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Compute dL/dq = g sum_j (softmax_j - [j = a]) scale_j c_j, BLOCK_G columns per program."""
    i_tile = tl.program_id(0)
    o_g = tl.program_id(1) * BLOCK_G
    in_fg, begin, end = _bank(i_tile, count_fg_ptr, K_fg, K, BLOCK_M)
    o_m = tl.load(token_ptr + i_tile.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M))
    m_m = o_m < M
    if BLOCK_C >= C:
        b_q = load_rows(q_ptr, o_m, m_m, 0, C, BLOCK_C, DTYPE)
    b_own = tl.load(assignment_ptr + o_m, mask=m_m, other=0).to(tl.int32) + begin
    b_lse = tl.load(lse_ptr + o_m, mask=m_m, other=float("inf"))
    b_grad = tl.zeros((BLOCK_M, BLOCK_G), dtype=tl.float32)
    for start in range(begin, end, BLOCK_K):
        o_k = start + tl.arange(0, BLOCK_K)
        m_k = o_k < end
        b_c = load_rows(c_ptr, o_k, m_k, o_g, C, BLOCK_G, DTYPE)
        if BLOCK_C >= C:
            b_qc = tl.dot(b_q, b_c.T, input_precision=PRECISION)
        else:
            b_qc = similarity(q_ptr, o_m, m_m, c_ptr, o_k, m_k, C, BLOCK_C, DTYPE, PRECISION)
        b_scale = tl.load(scale_ptr + o_k, mask=m_k, other=0.0)[None, :]
        b_logits = tl.where(m_k[None, :], b_qc * b_scale, float("-inf"))
        b_softmax = tl.exp2(b_logits - b_lse[:, None])
        b_weight = tl.where(o_k[None, :] == b_own[:, None], b_softmax - 1, b_softmax) * b_scale
        b_grad = tl.dot(b_weight.to(DTYPE), b_c, b_grad, input_precision=PRECISION)
    grad_loss = tl.load(grad_loss_ptr + tl.where(in_fg, 0, 1)) * LN_2
    o_c = o_g + tl.arange(0, BLOCK_G)
    pointers = grad_q_ptr + o_m[:, None] * C + o_c[None, :]
    b_grad = (b_grad * grad_loss).to(grad_q_ptr.dtype.element_ty)
    tl.store(pointers, b_grad, mask=m_m[:, None] & (o_c < C)[None, :])
