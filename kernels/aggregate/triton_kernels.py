"""The Triton kernels of multi-level token aggregation.

Letters: B images, N = H * W cells of the finest grid, h x w cells of a level's own grid, D or E channels.
Bilinear upsampling computes its source positions exactly, as quotients of integers: cell y of H reads at
((2y + 1) h - H) / 2H.
`ACC` is the dtype of the arithmetic: float64 for float64 tokens, float32 for all others.
"""

import triton
import triton.language as tl


@triton.jit
def source_cells(cell, size, target, ACC: tl.constexpr):
    """The two source cells that a target cell reads along one axis, and the weight of the second."""
    position = tl.maximum((2 * cell + 1) * size - target, 0)
    lower = position // (2 * target)
    weight = (position % (2 * target)).to(ACC) / (2 * target)
    return lower, tl.minimum(lower + 1, size - 1), weight


@triton.jit
def first_reader(cell, size, target):
    """The first target cell that reads at or beyond source position `cell - 1` along one axis."""
    numerator = tl.maximum((2 * cell - 1) * target - size, 0)
    return tl.minimum((numerator + 2 * size - 1) // (2 * size), target)


@triton.jit
def normalised(x, weight, bias, mask, D: tl.constexpr, EPS: tl.constexpr):
    """LayerNorm of rows (ROWS, BLOCK_D) that hold zeros beyond D."""
    mean = tl.sum(x, axis=1, keep_dims=True) / D
    centred = tl.where(mask, x - mean, 0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1, keep_dims=True) / D + EPS)
    return centred * rstd * weight + bias


@triton.jit
def aggregate_forward(
    z,
    sequences,
    strides,
    grids,
    norm_weight,
    norm_bias,
    units,
    D: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute one unit of z: ROWS cells of the finest level with CLS, or an interval of a coarse level."""
    image = (tl.program_id(0) // units).to(tl.int64)
    unit = tl.program_id(0) % units
    H, W = grids[0]
    columns = tl.arange(0, BLOCK_D)[None, :]
    mask = columns < D
    weight = tl.load(norm_weight + columns, mask=mask, other=0).to(ACC)
    bias = tl.load(norm_bias + columns, mask=mask, other=0).to(ACC)
    width = (len(sequences) + 1) * D
    z += image * H * W * width + columns
    blocks = tl.cdiv(H * W, ROWS)
    if unit < blocks:
        x = sequences[0] + image * strides[0][0] + columns
        cls = normalised(tl.load(x, mask=mask, other=0).to(ACC), weight, bias, mask, D, EPS)
        cell = (unit * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        inside = (cell < H * W) & mask
        rows = tl.load(x + (1 + cell) * strides[0][1], mask=inside, other=0).to(ACC)
        tl.store(z + cell * width, normalised(rows, weight, bias, mask, D, EPS), mask=inside)
        cls = tl.broadcast_to(cls, (ROWS, BLOCK_D))
        tl.store(z + cell * width + len(sequences) * D, cls, mask=inside)
    unit -= blocks
    for level in tl.static_range(1, len(sequences)):
        h, w = grids[level]
        count = (h + 1) * (w + 1)
        if (unit >= 0) & (unit < count):
            x = sequences[level] + image * strides[level][0] + strides[level][1] + columns
            stride = strides[level][1]
            i, j = unit // (w + 1), unit % (w + 1)
            upsample_interval(
                z + level * D, x, stride, i, j, h, w, H, W, weight, bias, mask, width, D, EPS, ACC
            )
        unit -= count


@triton.jit
def upsample_interval(
    z,
    x,
    stride,
    i,
    j,
    h,
    w,
    H,
    W,
    weight,
    bias,
    mask,
    width,
    D: tl.constexpr,
    EPS: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute all cells that lie between rows i - 1 and i and columns j - 1 and j of a level's grid.

    They share their four source tokens, which are therefore read and normalised once. The first and the last
    interval lie beyond the outermost cell, which is used on both of their sides, so that any weight is right.
    """
    top, bottom = tl.maximum(i - 1, 0).to(tl.int64) * w, tl.minimum(i, h - 1).to(tl.int64) * w
    left, right = tl.maximum(j - 1, 0), tl.minimum(j, w - 1)
    a = tl.load(x + (top + left) * stride, mask=mask, other=0).to(ACC)
    b = tl.load(x + (top + right) * stride, mask=mask, other=0).to(ACC)
    c = tl.load(x + (bottom + left) * stride, mask=mask, other=0).to(ACC)
    d = tl.load(x + (bottom + right) * stride, mask=mask, other=0).to(ACC)
    a, b = normalised(a, weight, bias, mask, D, EPS), normalised(b, weight, bias, mask, D, EPS)
    c, d = normalised(c, weight, bias, mask, D, EPS), normalised(d, weight, bias, mask, D, EPS)
    for row in range(first_reader(i, h, H), first_reader(i + 1, h, H)):
        down = ((2 * row + 1) * h - H - 2 * H * (i - 1)).to(ACC) / (2 * H)
        start, end = a + down * (c - a), b + down * (d - b)
        for column in range(first_reader(j, w, W), first_reader(j + 1, w, W)):
            across = ((2 * column + 1) * w - W - 2 * W * (j - 1)).to(ACC) / (2 * W)
            cell = (row * W + column).to(tl.int64)
            tl.store(z + cell * width, start + across * (end - start), mask=mask)


@triton.jit
def sum_of_levels(levels, strides, grids, cls, image, cell, columns, mask, ACC: tl.constexpr):
    """Sum rows (ROWS, BLOCK_E): the finest level, the others upsampled to it, and the CLS row if any."""
    H, W = grids[0]
    row, column = cell // W, cell % W
    rows = levels[0] + image * strides[0][0] + cell.to(tl.int64) * strides[0][1] + columns
    total = tl.load(rows, mask=mask, other=0).to(ACC)
    if cls is not None:
        total += tl.load(cls + image * strides[len(levels)][0] + columns, mask=mask, other=0).to(ACC)
    for level in tl.static_range(1, len(levels)):
        h, w = grids[level]
        stride = strides[level][1]
        top, bottom, down = source_cells(row, h, H, ACC)
        left, right, across = source_cells(column, w, W, ACC)
        top, bottom = (top * w).to(tl.int64), (bottom * w).to(tl.int64)
        x = levels[level] + image * strides[level][0] + columns
        a = tl.load(x + (top + left) * stride, mask=mask, other=0).to(ACC)
        b = tl.load(x + (top + right) * stride, mask=mask, other=0).to(ACC)
        total += (1 - down) * ((1 - across) * a + across * b)
        a = tl.load(x + (bottom + left) * stride, mask=mask, other=0).to(ACC)
        b = tl.load(x + (bottom + right) * stride, mask=mask, other=0).to(ACC)
        total += down * ((1 - across) * a + across * b)
    return total


@triton.jit
def fuse_forward(
    out,
    levels,
    strides,
    grids,
    cls,
    norm_weight,
    norm_bias,
    total,
    E: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    ACC: tl.constexpr,
):
    """LayerNorm of ROWS sums of levels; `total` = B * N rows."""
    N = grids[0][0] * grids[0][1]
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, BLOCK_E)[None, :]
    mask = (rows < total) & (columns < E)
    image = (rows // N).to(tl.int64)
    x = sum_of_levels(levels, strides, grids, cls, image, rows % N, columns, mask, ACC)
    weight = tl.load(norm_weight + columns, mask=columns < E, other=0).to(ACC)
    bias = tl.load(norm_bias + columns, mask=columns < E, other=0).to(ACC)
    y = normalised(x, weight, bias, columns < E, E, EPS)
    tl.store(out + rows.to(tl.int64) * E + columns, y, mask=mask)


@triton.jit
def norm_backward(
    d_sum,
    d_sum_strides,
    partial_weight,
    partial_bias,
    d_out,
    d_out_strides,
    levels,
    strides,
    grids,
    cls,
    norm_weight,
    total,
    tiles,
    E: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradient of `fuse_forward` with respect to its sums of levels, recomputed in `tiles` tiles of ROWS.

    Each program writes one row of partial sums for the gradients of the norm's weight and bias: there are no
    atomics, and the result has the same bits every time.
    """
    N = grids[0][0] * grids[0][1]
    columns = tl.arange(0, BLOCK_E)[None, :]
    inside = columns < E
    weight = tl.load(norm_weight + columns, mask=inside, other=0).to(ACC)
    d_weight = tl.zeros((ROWS, BLOCK_E), ACC)
    d_bias = tl.zeros((ROWS, BLOCK_E), ACC)
    for tile in range(tiles):
        rows = (tl.program_id(0) * tiles + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        mask = (rows < total) & inside
        image = (rows // N).to(tl.int64)
        cell = rows % N
        x = sum_of_levels(levels, strides, grids, cls, image, cell, columns, mask, ACC)
        mean = tl.sum(x, axis=1, keep_dims=True) / E
        x = tl.where(mask, x - mean, 0)
        rstd = tl.rsqrt(tl.sum(x * x, axis=1, keep_dims=True) / E + EPS)
        x = x * rstd
        at = d_out + image * d_out_strides[0] + cell.to(tl.int64) * d_out_strides[1] + columns
        d_y = tl.load(at, mask=mask, other=0).to(ACC)
        d_weight += d_y * x
        d_bias += d_y
        d_y *= weight
        slope = tl.sum(d_y * x, axis=1, keep_dims=True) / E
        d_x = rstd * (d_y - tl.sum(d_y, axis=1, keep_dims=True) / E - x * slope)
        at = d_sum + image * d_sum_strides[0] + cell.to(tl.int64) * d_sum_strides[1] + columns
        tl.store(at, d_x, mask=mask)
    at = tl.program_id(0).to(tl.int64) * E + columns
    tl.store(partial_weight + at, tl.sum(d_weight, axis=0, keep_dims=True), mask=inside)
    tl.store(partial_bias + at, tl.sum(d_bias, axis=0, keep_dims=True), mask=inside)


@triton.jit
def upsample_backward(
    d_source,
    source_strides,
    source_grid,
    d_target,
    target_strides,
    target_grid,
    E: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradient of one source cell: the weighted sum over the target cells that read it, ROWS at a time."""
    h, w = source_grid
    H, W = target_grid
    image = (tl.program_id(0) // (h * w)).to(tl.int64)
    cell = tl.program_id(0) % (h * w)
    i, j = cell // w, cell % w
    columns = tl.arange(0, BLOCK_E)[None, :]
    inside = columns < E
    d_target += image * target_strides[0]
    end = first_reader(j + 2, w, W)
    gradient = tl.zeros((ROWS, BLOCK_E), ACC)
    for row in range(first_reader(i, h, H), first_reader(i + 2, h, H)):
        down = share(row, i, h, H, ACC)
        for start in range(first_reader(j, w, W), end, ROWS):
            column = start + tl.arange(0, ROWS)[:, None]
            at = d_target + (row * W + column).to(tl.int64) * target_strides[1] + columns
            d_rows = tl.load(at, mask=(column < end) & inside, other=0).to(ACC)
            gradient += down * share(column, j, w, W, ACC) * d_rows
    at = d_source + image * source_strides[0] + cell.to(tl.int64) * source_strides[1] + columns
    tl.store(at, tl.sum(gradient, axis=0, keep_dims=True), mask=inside)


@triton.jit
def share(cell, source, size, target, ACC: tl.constexpr):
    """The weight that a target cell gives to one source cell along one axis."""
    lower, upper, weight = source_cells(cell, size, target, ACC)
    return tl.where(lower == source, 1 - weight, 0) + tl.where(upper == source, weight, 0)
