"""What a dense CRF's energy is made of, whichever implementation minimises it."""

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
    """-log p, of probabilities kept away from 0 as pydensecrf does it."""
    return -probabilities.clamp(SMALLEST_PROBABILITY, 1).log()
