import pytest
import torch

from kernels.crf.operands import product_operands, products_suffice

DEFAULT = [(0.8493218 / 67) ** 2] * 2 + [(0.8493218 / 3) ** 2] * 3
NARROW = [DEFAULT[0]] * 2 + [(0.8493218 / 1.1) ** 2] * 3
WIDE = [(0.8493218 / 4000) ** 2] * 2 + [(0.8493218 / 200) ** 2] * 3
NONE_ABSENT = torch.tensor(False)[None, None]
REACH = [224, 224, 128, 128, 128]


def extremes(reach, count=150):
    """Coordinates (1, 5, S) at their limits, in between, and each with neighbours one step away."""
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor(reach)[:, None]
    anywhere = (limit * (2 * torch.rand(5, count, generator=generator) - 1)).round()
    corners = limit * torch.randint(0, 2, (5, count), generator=generator).mul(2).sub(1)
    some = torch.cat([anywhere, corners], dim=1)
    steps = torch.randint(-2, 3, some.shape, generator=generator)
    return torch.cat([some, (some + steps).clamp(-limit, limit)], dim=1)[None].int()


def by_matrix_units(rows, columns, together):
    """Products added as tensor cores do: so many at a time, each cut to 24 bits of the largest."""
    total = rows.new_zeros(len(rows), len(columns), dtype=torch.float64)
    for half in rows.double().split(16, dim=1):
        products = half[:, None] * columns.double()
        for part in products.split(together, dim=2):
            largest = torch.maximum(part.abs().amax(dim=2), total.abs()).clamp(min=1e-30)
            unit = torch.exp2(largest.log2().floor() - 23)
            total = ((part / unit[..., None]).trunc().sum(dim=2) + (total / unit).trunc()) * unit
    return total


@pytest.mark.parametrize("together", [4, 8, 16])
@pytest.mark.parametrize("reach", [REACH, [1, 2048, 128, 128, 128], [1, 1, 128, 128, 128]])
@pytest.mark.parametrize("scale", [DEFAULT, NARROW, WIDE])
def test_exponents_of_near_pixels_are_right_to_fourteen_bits_behind_the_point(scale, reach, together):
    coordinates = extremes(reach)
    assert products_suffice(reach, scale)
    (rows,), (columns,) = product_operands(coordinates, reach, scale, NONE_ABSENT)
    features = coordinates[0].T.double() * torch.tensor(scale, dtype=torch.float64).sqrt()
    exact = -torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    near = exact > -20
    assert near.sum() > 2 * len(features)
    error = (by_matrix_units(rows, columns, together) - exact).abs()
    assert error[near].max() < 2**-14
    assert (error < 1e-5 * exact.abs() + 2**-14).all()


@pytest.mark.parametrize("scale", [DEFAULT, NARROW, WIDE])
def test_no_row_is_near_a_column_that_is_absent(scale):
    coordinates = extremes(REACH)
    (rows,), (columns,) = product_operands(coordinates, REACH, scale, NONE_ABSENT.logical_not())
    assert (rows[:, :16].float() @ columns.float().T).max() < -2e4


def test_coarse_products_and_their_sums_have_24_bits():
    (rows,), (columns,) = product_operands(extremes(REACH), REACH, NARROW, NONE_ABSENT)
    products = rows[:, None, :16].double() * columns.double()
    sums = products.cumsum(dim=2)
    assert torch.equal(sums, sums.float().double())


@pytest.mark.parametrize(
    ("reach", "scale", "suffice"),
    [
        (REACH, DEFAULT, True),
        (REACH, NARROW, True),
        (REACH, [1e-4, 1e-4, 1.0, 1.0, 1.0], False),
        ([1, 3000, 128, 128, 128], WIDE, False),
    ],
)
def test_what_float16_cannot_hold_is_left_to_differences(reach, scale, suffice):
    assert products_suffice(reach, scale) == suffice
