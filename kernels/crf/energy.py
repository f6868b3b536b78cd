"""The terms of a dense CRF's energy, for all implementations."""

from typing import NamedTuple

from torch import Tensor

SMALLEST_PROBABILITY = 1e-5


class Pairwise(NamedTuple):
    """Bandwidths and weights of the two kernels: positions alone, and positions with colours."""

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float


def unary_energy(probabilities: Tensor) -> Tensor:
    """Return -log p, with probabilities clamped away from 0 as in pydensecrf."""
    return -probabilities.clamp(SMALLEST_PROBABILITY, 1).log()
