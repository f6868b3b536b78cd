"""Photometric views of training images (HCL, section 6)."""

import torch
from torch import Tensor

from kernels.dispatch import choose
from kernels.views import reference
from kernels.views.colours import DRAWS

__all__ = ["photometric_views"]


def photometric_views(
    doubled: Tensor,
    draws: Tensor,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    impl: str = "auto",
) -> Tensor:
    """Make views of doubled crops: colour jitter, Gaussian blur, halving, normalisation.

    The order is: brightness; contrast about the mean grey; saturation; hue, as a rotation in YIQ; each of
    these clamped to [0, 255]; then grayscale, blur (radius 3 sigma, rounded up; mirrored at the border
    without repeating the last pixel), and resizing to one half by a triangle filter. DALI's operators compute
    the same, with a pass over the image for each. No gradient, no host synchronisation. "triton" rounds to
    float16 three times: the colours, the weights of blur and halving, and the images halved along one axis. A
    view has the same bits in every batch.

    Args:
        doubled: (B, 2S, 2S, 3) float32 in [0, 255], red first.
        draws: (V, B, 6) float32, the draws of each of V views: factors of brightness, contrast and
            saturation, hue in degrees, sigma of the blur in pixels (0: none; at most (2S - 2) / 3), 1 for
            grayscale.
        mean: mean of each channel, in [0, 255].
        std: standard deviation of each channel, on the same scale.
        impl: "auto", "torch" or "triton".

    Returns:
        (V, B, 3, S, S) float32.

    Raises:
        ValueError: shapes, dtypes or devices disagree.
    """
    _check(doubled, draws)
    if choose(impl, doubled, available=True) == "triton":
        from kernels.views import triton

        return triton.photometric_views(doubled, draws, mean, std)
    return reference.photometric_views(doubled, draws, mean, std)


def _check(doubled: Tensor, draws: Tensor) -> None:
    shape = tuple(doubled.shape)
    if doubled.ndim != 4 or shape[1] != shape[2] or shape[1] % 2 or shape[1] == 0 or shape[3] != 3:
        raise ValueError(f"doubled: expected (B, 2S, 2S, 3), got {shape}")
    if draws.ndim != 3 or draws.shape[1:] != (shape[0], DRAWS):
        raise ValueError(f"draws: expected (V, {shape[0]}, {DRAWS}), got {tuple(draws.shape)}")
    for name, tensor in (("doubled", doubled), ("draws", draws)):
        if tensor.dtype != torch.float32 or tensor.device != doubled.device:
            raise ValueError(
                f"{name}: expected float32 on {doubled.device}, got {tensor.dtype} on {tensor.device}"
            )
