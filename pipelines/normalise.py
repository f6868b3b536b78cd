"""ImageNet normalisation, the last step of every image pipeline."""

from typing import Any

from nvidia.dali import fn, types

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(image: Any, layout: str = "CHW") -> Any:
    """DALI node of (H, W, 3) in [0, 255] → float32 in `layout`, 0 where the colour is ImageNet's mean."""
    mean, std = ([255 * value for value in values] for values in (MEAN, STD))
    return fn.crop_mirror_normalize(image, mean=mean, std=std, dtype=types.FLOAT, output_layout=layout)
