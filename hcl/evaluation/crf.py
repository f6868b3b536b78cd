"""Dense CRF on predicted probabilities, with the published settings (HCL, section 7)."""

from dataclasses import asdict, dataclass
from typing import Literal

from torch import Tensor

from kernels.crf import dense_crf


@dataclass
class CRFConfig:
    """Settings of the dense CRF (Krähenbühl and Koltun, 2011); the defaults are the published ones.

    Args:
        iterations: of mean field.
        gaussian_sxy: standard deviation of the smoothness kernel, in pixels.
        gaussian_compat: its weight.
        bilateral_sxy: standard deviation of the appearance kernel in pixels.
        bilateral_srgb: and in colour, of 0 to 255.
        bilateral_compat: its weight.
        impl: auto is triton on a CUDA GPU and pydensecrf in worker processes elsewhere; torch is exact, for
            small images.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_compat: float = 4.0
    impl: Literal["auto", "torch", "triton", "pydensecrf"] = "auto"

    def __str__(self) -> str:
        return (
            f"dense CRF, {self.iterations} iterations, smoothness sxy {self.gaussian_sxy:g} "
            f"compat {self.gaussian_compat:g}, appearance sxy {self.bilateral_sxy:g} "
            f"srgb {self.bilateral_srgb:g} compat {self.bilateral_compat:g}"
        )


def refine(logits: Tensor, pictures: Tensor, config: CRFConfig) -> Tensor:
    """Logits (B, classes, H, W) and their pictures (B, 3, H, W) uint8 RGB to marginals (B, classes, H, W)."""
    return dense_crf(logits.softmax(dim=1), pictures, **asdict(config))
