"""Squared distances as products for the matrix units, in half precision but as accurate as differences.

Coordinates are integers; relative to the image's centre they have up to 11 bits, which float16 holds. With
the dimensions' scales s, minus the squared distance of x and y is 2 s x . y - s x . x - s y . y. float16
cannot hold the factors 2 s x and the squares, so each is split into three numbers: a coarse one and two for
the remainder. The coarse numbers lie on a grid such that their products and the sums of these have at most 24
bits: they are exact in float32, whatever cancels. The products of the remainders are small and added last.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.crf.tiles import column

MAX_REACH = 2**11
# Factors, which are up to twice a square, must fit into float16.
MAX_SQUARE = 32_000
# Used in place of minus a square; no product of coordinates outweighs it.
FAR = -65_504
# Coarse products are multiples of 2^-21 times the power of two that the largest square does not exceed. Sums
# reach four times that power: 24 bits in all, one of them spare.
COARSE_BITS = 21


def products_suffice(reach: Sequence[int], scale: Sequence[float]) -> bool:
    """Return whether float16 holds coordinates up to `reach`, and their squares times `scale`."""
    return max(reach) <= MAX_REACH and _largest_square(reach, scale) <= MAX_SQUARE


def product_operands(
    coordinates: Tensor, reach: Sequence[int], scale: Sequence[float], absent: Tensor
) -> tuple[Tensor, Tensor]:
    """Make a row and a column for every slot, whose products are minus the squared distances.

    Args:
        coordinates: (B, 5, S) integers, around the image's centre.
        reach: the largest magnitude of each coordinate, at least 1, for which `products_suffice` holds.
        scale: the factor of each coordinate's squared difference.
        absent: (B, S) bool, the slots without a pixel, whose columns are made far from all rows.

    Returns:
        Rows (B, S, 32), whose first 16 numbers are coarse and multiplied first, and columns (B, S, 16), both
        float16.
    """
    # In units in which coordinates are about 1, so that small factors do not become subnormal.
    unit = [2.0 ** (x.bit_length() - 1) for x in reach]
    x = coordinates / column(unit, coordinates)
    factor = 2 * column([s * u**2 for s, u in zip(scale, unit, strict=True)], x) * x
    square = -(factor * x).sum(dim=1, keepdim=True) / 2
    top = _power(_largest_square(reach, scale))
    finest = top / 2**COARSE_BITS
    grid = [u * max(finest, _power(2 * s * x) / 2**11) for u, s, x in zip(unit, scale, reach, strict=True)]
    factors = _parts(factor, column(grid, x))
    high = _multiple(square, top / 2**11)
    mid, low, _ = _parts(square - high, finest)
    high, x = high.half(), x.half()
    one, none, nones = torch.ones_like(low), torch.zeros_like(low), torch.zeros_like(x)
    coarse = [factors[0], nones, one, one, none, high, mid, none]
    fine = [factors[1], factors[2], none, none, one, low, none, none]
    columns = [x, x, high.masked_fill(absent[:, None], FAR), mid, low, one, one, none]
    return _side_by_side(coarse + fine), _side_by_side(columns)


def _largest_square(reach: Sequence[int], scale: Sequence[float]) -> float:
    return sum(s * x**2 for x, s in zip(reach, scale, strict=True))


def _power(value: float) -> float:
    """Return the least power of two that is not below a positive number."""
    return 2.0 ** math.ceil(math.log2(value))


def _multiple(values: Tensor, grid: Tensor | float) -> Tensor:
    return (values / grid).round() * grid


def _parts(values: Tensor, grid: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Split float64 values into a sum of float16: multiples of the grid, the rest, and the rest of that."""
    coarse = _multiple(values, grid)
    mid = (values - coarse).half()
    return coarse.half(), mid, (values - coarse - mid).half()


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=1).mT.contiguous()
