"""A photograph as a person sees it: upright, in 8-bit colours."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hcl.data.images import BadImageError, opened, shown

Photograph = str | Path | Image.Image | np.ndarray
"""An image file, a Pillow image, or an RGB array (H, W, 3) uint8."""


def upright(photograph: Photograph) -> Image.Image:
    """Return the photograph in RGB, turned as its EXIF orientation says, without transparency.

    Raises:
        FileNotFoundError: there is no such file; the message names it.
        ValueError: the file cannot be used (the message names it and the reason), or the array is not
            (H, W, 3) uint8.
    """
    if isinstance(photograph, (str, Path)):
        return _read(Path(photograph))
    if isinstance(photograph, Image.Image):
        return _in_colours(photograph)
    if not isinstance(photograph, np.ndarray) or photograph.ndim != 3 or photograph.shape[2] != 3:
        found = getattr(photograph, "shape", type(photograph).__name__)
        raise ValueError(f"a photograph must be a path, a Pillow image or an array (H, W, 3), got {found}")
    if photograph.dtype != np.uint8 or not photograph.size:
        raise ValueError(
            f"an array of colours must be uint8 and not empty, got {photograph.dtype} {photograph.shape}"
        )
    return Image.fromarray(photograph)


def _read(path: Path) -> Image.Image:
    try:
        with opened(path) as image:
            return _in_colours(image)
    except BadImageError as error:
        kind = ValueError if path.exists() else FileNotFoundError
        raise kind(f"{shown(path)} {error}") from error


def _in_colours(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would clip these at 255
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
