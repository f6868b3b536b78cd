"""Photographs with a map of their tokens on top, whole or cropped around a token; and pictures as URIs."""

import base64
import io
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

from hcl.figures.colours import as_bytes

Pixels = np.ndarray
"""(H, W, 3) uint8, RGB."""

QUALITY = 82
SHADE = 0.28
"""Share of the brightness that is left outside of a mask."""
MARK = (255, 255, 255)


class Cell(NamedTuple):
    """The position of a token in its image's grid."""

    row: int
    column: int


def data_uri(pixels: Pixels, side: int) -> str:
    """Return a picture as a data URI of a JPEG whose longer side has at most ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def overlay_uri(layer: np.ndarray) -> str:
    """Return a layer (H, W, 4) uint8, colour and opacity, as a data URI of a PNG to lay over a picture."""
    file = io.BytesIO()
    Image.fromarray(layer).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def heat_layer(values: np.ndarray) -> np.ndarray:
    """Return a map (h, w) of values as a layer of warm colours, transparent where low, dense where high."""
    scaled = _scaled(values)
    layer = colormaps["inferno"](0.3 + 0.65 * scaled)
    layer[..., 3] = 0.85 * scaled**2
    return as_bytes(layer)


def shade_layer(mask: np.ndarray) -> np.ndarray:
    """Return a mask (h, w) as a layer: transparent where it is true, dark elsewhere."""
    layer = np.zeros((*mask.shape, 4))
    layer[..., 3] = np.where(mask, 0, 1 - SHADE)
    return as_bytes(layer)


def colour_layer(colours: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Return colours (h, w, 3) in [0, 1] as a layer."""
    return as_bytes(np.concatenate([colours, np.full_like(colours[..., :1], opacity)], axis=2))


def heat(pixels: Pixels, values: np.ndarray) -> Pixels:
    """Draw a map (h, w) of values in warm colours over a picture in grey, dark where values are low."""
    warm = colormaps["inferno"](_enlarged(_scaled(values).astype(np.float32), pixels))[..., :3]
    grey = pixels.mean(axis=2, keepdims=True) / 255
    return as_bytes(0.3 * grey + 0.7 * warm)


def lit(pixels: Pixels, mask: np.ndarray, light: float = SHADE) -> Pixels:
    """Darken a picture outside of a mask (h, w) to the share ``light`` of its brightness."""
    share = np.where(stretched(mask, pixels), 1.0, light)
    return as_bytes(pixels / 255 * share[..., None])


def coloured(pixels: Pixels, colours: np.ndarray, strength: float = 0.65) -> Pixels:
    """Blend a picture with colours (h, w, 3) in [0, 1]."""
    return as_bytes((1 - strength) * pixels / 255 + strength * stretched(colours, pixels))


def crop(pixels: Pixels, cell: Cell, grid: tuple[int, int], *, context: int = 2) -> Pixels:
    """Crop a square around a token, ``context`` cells to each side where they exist, and frame its cell."""
    height, width = pixels.shape[0] // grid[0], pixels.shape[1] // grid[1]
    box = window(cell, grid, pixels.shape[:2], (2 * context + 1) * max(height, width))
    left, top, right, bottom = map(round, box)
    cut = pixels[top:bottom, left:right].copy()
    row, column = cell.row * height - top, cell.column * width - left
    own = cut[row : row + height, column : column + width]
    line = max(min(height, width) // 8, 1)
    inside = own[line:-line, line:-line].copy()
    own[:] = MARK
    own[line:-line, line:-line] = inside
    return cut


def window(
    cell: tuple[int, int], grid: tuple[int, int], size: tuple[int, ...], side: float
) -> tuple[float, float, float, float]:
    """Return the square around a token, moved and shrunk so that it lies inside its image.

    Args:
        cell: row and column of the token.
        grid: (h, w), which covers the image.
        size: (H, W) of the image in pixels.
        side: side of the square in pixels.

    Returns:
        left, top, right and bottom in pixels.
    """
    (height, width), (x, y) = size, centre(cell, grid, size)
    side = min(side, height, width)
    left, top = min(max(x - side / 2, 0), width - side), min(max(y - side / 2, 0), height - side)
    return left, top, left + side, top + side


def centre(cell: tuple[int, int], grid: tuple[int, int], size: tuple[int, ...]) -> tuple[float, float]:
    """Return the centre of a token in an image of size (H, W): x and y in pixels."""
    return (cell[1] + 0.5) * size[1] / grid[1], (cell[0] + 0.5) * size[0] / grid[0]


def stretched(values: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Resize a map (h, w, ...) to the size of a picture by nearest neighbour."""
    rows, columns = (
        np.arange(side) * own // side for side, own in zip(pixels.shape, values.shape[:2], strict=False)
    )
    return values[rows[:, None], columns]


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scale values to [0, 1]."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-12)


def _enlarged(values: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Resize a map (h, w) float32 to the size of a picture, smoothly."""
    size = (pixels.shape[1], pixels.shape[0])
    return np.asarray(Image.fromarray(values, mode="F").resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
