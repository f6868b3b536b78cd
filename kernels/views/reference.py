"""Photometric views in plain torch: every step in the order of section 6."""

import torch
from torch import Tensor

from kernels.views.colours import GREY, LARGEST, YIQ


def photometric_views(
    doubled: Tensor, draws: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Jitter, blur, halve and normalise, each in a pass of its own."""
    pixels = _jittered(doubled, draws)
    halves = halving_matrices(draws[..., 4], doubled.shape[1])[:, :, None]
    views = halves @ pixels @ halves.mT
    shift, scale = (views.new_tensor(values)[:, None, None] for values in (mean, std))
    return (views - shift) / scale


def _jittered(doubled: Tensor, draws: Tensor) -> Tensor:
    """Apply all pixel-wise changes to doubled crops (B, H, W, 3). (V, B, 3, H, W)."""
    brightness, contrast, saturation, hue, _, grayscale = draws[..., None, None, None].unbind(2)
    x = (brightness * doubled.movedim(3, 1)).clamp(0, LARGEST)
    grey = (x * x.new_tensor(GREY)[:, None, None]).sum(dim=2, keepdim=True).mean(dim=(3, 4), keepdim=True)
    x = (contrast * x + (1 - contrast) * grey).clamp(0, LARGEST)
    x = _turned(x, saturation, 0 * hue).clamp(0, LARGEST)
    x = _turned(x, torch.ones_like(hue), hue.deg2rad()).clamp(0, LARGEST)
    return _turned(x, 1 - grayscale, 0 * hue)


def _turned(x: Tensor, strength: Tensor, angle: Tensor) -> Tensor:
    """Rotate colours (V, B, 3, H, W) about the axis of greys and scale their distance from it."""
    yiq = x.new_tensor(YIQ)
    luma, i, q = torch.einsum("kc,vbchw->kvbhw", yiq, x)[:, :, :, None]
    cos, sin = strength * angle.cos(), strength * angle.sin()
    turned = torch.cat([luma, cos * i + sin * q, cos * q - sin * i], dim=2)
    return torch.einsum("ck,vbkhw->vbchw", torch.linalg.inv(yiq), turned)


def halving_matrices(sigma: Tensor, side: int) -> Tensor:
    """Return the matrices of Gaussian blur (radius 3 sigma, mirrored at the border) and halving on an axis.

    Args:
        sigma: (...) standard deviations in pixels; 0 blurs nothing.
        side: pixels n along the axis, even.

    Returns:
        (..., n / 2, n), rows that sum to 1.
    """
    cells = torch.arange(side, device=sigma.device)
    sources = (2 * cells[: side // 2, None] + torch.arange(-1, 3, device=sigma.device)).clamp(0, side - 1)
    i, j, sigma = sources[:, :, None], cells, sigma[..., None, None, None]
    blurred = _gaussian(j - i, sigma)
    blurred += _gaussian(j + i, sigma) * (j > 0)
    blurred += _gaussian(2 * (side - 1) - j - i, sigma) * (j < side - 1)
    shares = sigma.new_tensor([0.125, 0.375, 0.375, 0.125])[:, None]
    halved = (shares * blurred).sum(dim=-2)
    return halved / halved.sum(dim=-1, keepdim=True)


def _gaussian(distance: Tensor, sigma: Tensor) -> Tensor:
    """Compute weights that need not sum to 1, and are 0 beyond the radius."""
    weight = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3)).square())
    return torch.where(distance.abs() <= (3 * sigma).ceil(), weight, 0)
