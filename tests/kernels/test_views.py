import pytest
import torch

from kernels.views import photometric_views
from kernels.views.reference import halving_matrices

MEAN, STD = (120.0, 120.0, 120.0), (60.0, 60.0, 60.0)
STILL = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def test_nothing_but_halving_where_nothing_is_drawn():
    doubled = 255 * torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    (view,) = photometric_views(doubled, STILL.expand(1, 2, 6), MEAN, STD)
    planes = doubled.permute(0, 3, 1, 2)
    halved = torch.nn.functional.interpolate(planes, scale_factor=0.5, mode="bilinear", antialias=True)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # torch shrinks the filter at the border
    torch.testing.assert_close(view[inner], ((halved - 120) / 60)[inner], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0, 4.6])
def test_a_constant_image_stays_what_it_is(sigma):
    halves = halving_matrices(torch.tensor([sigma]), 16)
    assert halves.shape == (1, 8, 16)
    torch.testing.assert_close(halves.sum(dim=2), torch.ones(1, 8))


def test_a_blur_is_mirrored_without_the_last_pixel():
    """Of the signal whose mirror image continues it evenly, blurred far from any border."""
    side, sigma = 16, torch.tensor([1.7])
    signal = torch.rand(side, generator=torch.Generator().manual_seed(0))
    period = torch.cat([signal, signal[1:-1].flip(0)])
    mirrored = period[torch.arange(-side, 2 * side) % len(period)]
    expected = halving_matrices(sigma, 3 * side)[0] @ mirrored
    found = halving_matrices(sigma, side)[0] @ signal
    inner = slice(1, -1)  # beyond the first and the last pixel halving repeats them, a mirror does not
    torch.testing.assert_close(found[inner], expected[side // 2 : side][inner])


@pytest.mark.parametrize(
    ("doubled", "draws", "message"),
    [
        (torch.zeros(2, 8, 6, 3), torch.zeros(1, 2, 6), r"doubled: expected .*, got \(2, 8, 6, 3\)"),
        (torch.zeros(2, 0, 0, 3), torch.zeros(1, 2, 6), r"doubled: expected .*, got \(2, 0, 0, 3\)"),
        (torch.zeros(2, 7, 7, 3), torch.zeros(1, 2, 6), r"doubled: expected .*, got \(2, 7, 7, 3\)"),
        (torch.zeros(2, 8, 8, 3), torch.zeros(1, 3, 6), r"draws: expected \(V, 2, 6\), got \(1, 3, 6\)"),
        (torch.zeros(2, 8, 8, 3).byte(), torch.zeros(1, 2, 6), "doubled: expected float32"),
        (torch.zeros(2, 8, 8, 3), torch.zeros(1, 2, 6).double(), "draws: expected float32"),
    ],
)
def test_what_cannot_be_viewed_is_refused(doubled, draws, message):
    with pytest.raises(ValueError, match=message):
        photometric_views(doubled, draws, MEAN, STD)
