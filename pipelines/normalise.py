"""ImageNet normalisation, the last step of every image pipeline, and its inverse."""

from typing import Any

import torch
from torch import Tensor

from pipelines import dali

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(image: Any, layout: str = "CHW") -> Any:
    """DALI node of (H, W, 3) in [0, 255] → float32 in `layout`, 0 where the colour is ImageNet's mean."""
    mean, std = ([255 * value for value in values] for values in (MEAN, STD))
    return dali.fn.crop_mirror_normalize(
        image, mean=mean, std=std, dtype=dali.types.FLOAT, output_layout=layout
    )


def colours(images: Tensor) -> Tensor:
    """The pictures (B, 3, H, W) uint8 RGB that normalised images (B, 3, H, W) were made from."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
