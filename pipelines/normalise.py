"""ImageNet normalisation, the last step of every image pipeline, and its inverse."""

from typing import Any

import torch
from torch import Tensor

from pipelines import dali

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PIXEL_MEAN = (255 * MEAN[0], 255 * MEAN[1], 255 * MEAN[2])
PIXEL_STD = (255 * STD[0], 255 * STD[1], 255 * STD[2])


def normalise(image: Any, layout: str = "CHW") -> Any:
    """Normalise a DALI node (H, W, 3) in [0, 255] to float32 in `layout`; ImageNet's mean becomes 0."""
    return dali.fn.crop_mirror_normalize(
        image, mean=list(PIXEL_MEAN), std=list(PIXEL_STD), dtype=dali.types.FLOAT, output_layout=layout
    )


def colours(images: Tensor) -> Tensor:
    """Turn normalised images (B, 3, H, W) back into RGB images (B, 3, H, W) uint8."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
