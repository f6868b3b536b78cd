"""Views of a scene for student and teacher: recoloured crops, and masks that hide patches."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.normalise import MEAN, STD

LUMA = torch.tensor([0.299, 0.587, 0.114])


def crop(images: Tensor, size: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Cut random parts (B, 3, size, size) of an area in this range out of images; mirror half of them."""
    count = len(images)
    share = torch.empty(count).uniform_(*area, generator=generator)
    ratio = torch.empty(count).uniform_(-0.29, 0.29, generator=generator).exp()
    extent = torch.stack([share * ratio, share / ratio]).sqrt().clamp(max=1)
    centre = (2 * torch.rand(2, count, generator=generator) - 1) * (1 - extent)
    mirrored = torch.rand(count, generator=generator) < 0.5
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = torch.where(mirrored, -extent[0], extent[0])
    affine[:, 1, 1] = extent[1]
    affine[:, :, 2] = centre.T
    grid = F.affine_grid(affine, [count, 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change colours and contrast of images (B, 3, S, S) in [0, 1]; make some grey, and blur some."""

    def factor(spread: float) -> Tensor:
        return 1 + spread * (2 * torch.rand(len(images), 1, 1, generator=generator) - 1)

    saturation, contrast, brightness = factor(0.5), factor(0.4), factor(0.4)
    grey = torch.rand(len(images), 1, 1, generator=generator) < 0.2
    saturation = saturation.masked_fill(grey, 0)
    desaturate = saturation * torch.eye(3) + (1 - saturation) * LUMA.expand(3, 3)
    turn = _hue_rotation(0.2 * math.pi * (factor(1.0) - 1))
    colours = torch.einsum("nij,njhw->nihw", turn @ desaturate * contrast * brightness, images)
    mean = (images.mean((2, 3)) @ LUMA)[:, None, None, None]
    pixels = (colours + ((1 - contrast) * brightness)[..., None] * mean).clamp(0, 1)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.2
    return torch.where(chosen, blurred, pixels)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotations (B, 3, 3) about the grey axis by angles (B, 1, 1)."""
    k = 3**-0.5
    cross = torch.tensor([[0, -k, k], [k, 0, -k], [-k, k, 0]])
    return angle.cos() * torch.eye(3) + (1 - angle.cos()) / 3 + angle.sin() * cross


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Recolour images (B, 3, S, S) in [0, 1] and normalise them for the backbone."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (recolour(images, generator) - mean) / std


def draw_masks(count: int, patches: int, generator: torch.Generator) -> Tensor:
    """Draw masks (count, patches) bool: every other image hides patches, with a probability below 0.8."""
    share = 0.8 * torch.rand(count, 1, generator=generator)
    share[::2] = 0
    return torch.rand(count, patches, generator=generator) < share
