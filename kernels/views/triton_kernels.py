"""The device code of photometric views: colours, matrices of blur and halving, and their products.

In kernels: `i_` index, `o_` offsets, `m_` mask, `b_` block of values, `_ptr` pointer.
"""

import torch
import triton
import triton.language as tl

from kernels.views.colours import GREY, LARGEST, YIQ

TOP = tl.constexpr(LARGEST)
R_GREY, G_GREY, B_GREY = (tl.constexpr(value) for value in GREY)
(R_Y, G_Y, B_Y), (R_I, G_I, B_I), (R_Q, G_Q, B_Q) = ([tl.constexpr(value) for value in row] for row in YIQ)
_RGB = torch.linalg.inv(torch.tensor(YIQ, dtype=torch.float64)).tolist()
(Y_R, I_R, Q_R), (Y_G, I_G, Q_G), (Y_B, I_B, Q_B) = ([tl.constexpr(value) for value in row] for row in _RGB)


@triton.jit
def clamped(b_x):
    """Clamp colours to [0, 255]."""
    return tl.minimum(tl.maximum(b_x, 0.0), TOP)


@triton.jit
def load_pixels(at, mask):
    """Load red, green and blue of pixels whose three values are contiguous."""
    return (
        tl.load(at, mask=mask, other=0.0),
        tl.load(at + 1, mask=mask, other=0.0),
        tl.load(at + 2, mask=mask, other=0.0),
    )


@triton.jit
def brightened(b_r, b_g, b_b, brightness):
    """Multiply colours by a factor and clamp them."""
    return clamped(b_r * brightness), clamped(b_g * brightness), clamped(b_b * brightness)


@triton.jit
def turned(b_r, b_g, b_b, cos, sin):
    """Rotate colours about the axis of greys and scale their distance from it, by one complex factor."""
    b_y = b_r * R_Y + b_g * G_Y + b_b * B_Y
    b_i = b_r * R_I + b_g * G_I + b_b * B_I
    b_q = b_r * R_Q + b_g * G_Q + b_b * B_Q
    b_i, b_q = cos * b_i + sin * b_q, cos * b_q - sin * b_i
    return (
        b_y * Y_R + b_i * I_R + b_q * Q_R,
        b_y * Y_G + b_i * I_G + b_q * Q_G,
        b_y * Y_B + b_i * I_B + b_q * Q_B,
    )


@triton.jit
def grey_kernel(
    sum_ptr, image_ptr, draw_ptr, B, PIXELS, V: tl.constexpr, DRAWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Sum the greys of BLOCK pixels of an image after each view's brightness."""
    i_image = tl.program_id(0).to(tl.int64)
    i_block = tl.program_id(1)
    o_p = i_block * BLOCK + tl.arange(0, BLOCK)
    m_p = o_p < PIXELS
    b_r, b_g, b_b = load_pixels(image_ptr + (i_image * PIXELS + o_p) * 3, m_p)
    for view in tl.static_range(V):
        i_view = view * B + i_image
        b_red, b_green, b_blue = brightened(b_r, b_g, b_b, tl.load(draw_ptr + i_view * DRAWS))
        total = tl.sum(b_red * R_GREY + b_green * G_GREY + b_blue * B_GREY, axis=0)
        tl.store(sum_ptr + i_view * tl.num_programs(1) + i_block, total)


@triton.jit
def jitter_kernel(
    out_ptr,
    image_ptr,
    draw_ptr,
    grey_ptr,
    turn_ptr,
    shift,
    scale,
    B,
    SIDE,
    V: tl.constexpr,
    DRAWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Apply all pixel-wise changes to a row, for each view, and normalise it; one plane per channel."""
    i_image = (tl.program_id(0) // SIDE).to(tl.int64)
    i_row = tl.program_id(0) % SIDE
    o_x = tl.arange(0, BLOCK)
    m_x = o_x < SIDE
    b_r, b_g, b_b = load_pixels(image_ptr + ((i_image * SIDE + i_row) * SIDE + o_x) * 3, m_x)
    plane = SIDE.to(tl.int64) * SIDE
    for view in tl.static_range(V):
        i_view = view * B + i_image
        at = draw_ptr + i_view * DRAWS
        contrast, saturation = tl.load(at + 1), tl.load(at + 2)
        centre = (1 - contrast) * tl.load(grey_ptr + i_view)
        b_red, b_green, b_blue = brightened(b_r, b_g, b_b, tl.load(at))
        b_red, b_green = clamped(contrast * b_red + centre), clamped(contrast * b_green + centre)
        b_blue = clamped(contrast * b_blue + centre)
        b_red, b_green, b_blue = turned(b_red, b_green, b_blue, saturation, 0.0)
        cos, sin = tl.load(turn_ptr + 2 * i_view), tl.load(turn_ptr + 2 * i_view + 1)
        b_red, b_green, b_blue = turned(clamped(b_red), clamped(b_green), clamped(b_blue), cos, sin)
        grey = 1 - tl.load(at + 5)
        b_red, b_green, b_blue = turned(clamped(b_red), clamped(b_green), clamped(b_blue), grey, 0.0)
        row = out_ptr + i_view * 3 * plane + i_row * SIDE + o_x
        tl.store(row, (b_red - shift[0]) * scale[0], mask=m_x)
        tl.store(row + plane, (b_green - shift[1]) * scale[1], mask=m_x)
        tl.store(row + 2 * plane, (b_blue - shift[2]) * scale[2], mask=m_x)


@triton.jit
def gaussian(b_distance, sigma):
    """Compute weights that need not sum to 1, and are 0 beyond the radius."""
    b_scaled = b_distance.to(tl.float32) / tl.maximum(sigma, 1e-3)
    b_weight = tl.exp(-0.5 * b_scaled * b_scaled)
    return tl.where(tl.abs(b_distance) <= tl.ceil(3 * sigma), b_weight, 0.0)


@triton.jit
def halving_kernel(
    out_ptr, draw_ptr, SIDE, SIGMA: tl.constexpr, DRAWS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Compute ROWS rows of a view's matrix of blur and halving."""
    i_view = tl.program_id(0).to(tl.int64)
    o_y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    o_x = tl.arange(0, BLOCK)[None, :]
    sigma = tl.load(draw_ptr + i_view * DRAWS + SIGMA)
    b_row = tl.zeros((ROWS, BLOCK), tl.float32)
    for tap in tl.static_range(4):
        o_i = tl.minimum(tl.maximum(2 * o_y - 1 + tap, 0), SIDE - 1)
        b_blurred = gaussian(o_x - o_i, sigma)
        b_blurred += tl.where(o_x > 0, gaussian(o_x + o_i, sigma), 0.0)
        b_blurred += tl.where(o_x < SIDE - 1, gaussian(2 * (SIDE - 1) - o_x - o_i, sigma), 0.0)
        b_row += (0.375 if (tap == 1 or tap == 2) else 0.125) * b_blurred
    b_row = tl.where(o_x < SIDE, b_row, 0.0)
    b_row /= tl.sum(b_row, axis=1, keep_dims=True)
    mask = (o_y < SIDE // 2) & (o_x < SIDE)
    tl.store(out_ptr + (i_view * (SIDE // 2) + o_y) * SIDE + o_x, b_row, mask=mask)


@triton.jit
def product_kernel(
    out_ptr,
    a_ptr,
    b_ptr,
    M,
    N,
    K,
    SHARED: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Multiply (M, K) by (K, N), or a transposed (N, K); SHARED successive products share a left factor."""
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    i_product = (tl.program_id(0) // (tiles_m * tiles_n)).to(tl.int64)
    i_tile = tl.program_id(0) % (tiles_m * tiles_n)
    o_m = i_tile % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    o_n = i_tile // tiles_m * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    a_ptr += i_product // SHARED * M * K
    b_ptr += i_product * K * N
    b_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        o_k = start + tl.arange(0, BLOCK_K)
        b_a = tl.load(a_ptr + o_m * K + o_k[None, :], mask=(o_m < M) & (o_k < K)[None, :], other=0.0)
        at = b_ptr + (o_n * K + o_k[:, None] if TRANSPOSED else o_k[:, None] * N + o_n)
        b_b = tl.load(at, mask=(o_k < K)[:, None] & (o_n < N), other=0.0)
        b_sum = tl.dot(b_a, b_b, b_sum, input_precision="ieee")
    tl.store(out_ptr + (i_product * M + o_m) * N + o_n, b_sum, mask=(o_m < M) & (o_n < N))
