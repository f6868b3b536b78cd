"""Pictures of a page: photographs with a map over them, small, and inside the page itself."""

import base64
import io
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

Pixels = np.ndarray
"""(H, W, 3) uint8, red first."""

QUALITY = 82
SHADE = 0.28
"""Share of its light that is left to what lies outside of a mask."""
MARK = (255, 255, 255)


class Cell(NamedTuple):
    """A token's place in its image's grid."""

    row: int
    column: int


def data_uri(pixels: Pixels, side: int) -> str:
    """A JPEG inside a URI, its longer side at most so many pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def overlay_uri(layer: np.ndarray) -> str:
    """A PNG (H, W, 4) uint8, colour and opacity, inside a URI: to lie over a picture."""
    file = io.BytesIO()
    Image.fromarray(layer).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def heat_layer(values: np.ndarray) -> np.ndarray:
    """A map (h, w) of values as a layer: warm colours, clear where it is low, dense where it is high."""
    scaled = _scaled(values)
    layer = colormaps["inferno"](0.3 + 0.65 * scaled)
    layer[..., 3] = 0.85 * scaled**2
    return _uint8(layer)


def shade_layer(mask: np.ndarray) -> np.ndarray:
    """A mask (h, w) as a layer: clear where it is true, dark elsewhere."""
    layer = np.zeros((*mask.shape, 4))
    layer[..., 3] = np.where(mask, 0, 1 - SHADE)
    return _uint8(layer)


def colour_layer(colours: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Colours (h, w, 3) in [0, 1] as a layer."""
    return _uint8(np.concatenate([colours, np.full_like(colours[..., :1], opacity)], axis=2))


def heat(pixels: Pixels, values: np.ndarray) -> Pixels:
    """A map (h, w) of values as warm colours over a picture in grey, dark where they are low."""
    warm = colormaps["inferno"](_enlarged(_scaled(values).astype(np.float32), pixels))[..., :3]
    grey = pixels.mean(axis=2, keepdims=True) / 255
    return _uint8(0.3 * grey + 0.7 * warm)


def lit(pixels: Pixels, mask: np.ndarray) -> Pixels:
    """A picture whose parts outside of a mask (h, w) lie in the shade."""
    light = np.where(_stretched(mask, pixels), 1.0, SHADE)
    return _uint8(pixels / 255 * light[..., None])


def coloured(pixels: Pixels, colours: np.ndarray, strength: float = 0.65) -> Pixels:
    """A picture under colours (h, w, 3) in [0, 1]."""
    return _uint8((1 - strength) * pixels / 255 + strength * _stretched(colours, pixels))


def crop(pixels: Pixels, cell: Cell, grid: tuple[int, int], *, context: int = 2) -> Pixels:
    """The surroundings of a token, so many cells on each side, its own cell marked by a frame.

    Beyond the picture lies its mirror image.
    """
    height, width = pixels.shape[0] // grid[0], pixels.shape[1] // grid[1]
    padding = ((context * height,) * 2, (context * width,) * 2, (0, 0))
    padded = np.pad(pixels, padding, mode="symmetric")
    top, left = cell.row * height, cell.column * width
    sides = (2 * context + 1) * height, (2 * context + 1) * width
    cut = padded[top : top + sides[0], left : left + sides[1]].copy()
    own = cut[context * height : (context + 1) * height, context * width : (context + 1) * width]
    line = max(min(height, width) // 8, 1)
    inside = own[line:-line, line:-line].copy()
    own[:] = MARK
    own[line:-line, line:-line] = inside
    return cut


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values brought to [0, 1]."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-12)


def _stretched(values: np.ndarray, pixels: Pixels) -> np.ndarray:
    """A map (h, w, ...) at the size of a picture by nearest neighbour."""
    rows, columns = (
        np.arange(side) * own // side for side, own in zip(pixels.shape, values.shape[:2], strict=False)
    )
    return values[rows[:, None], columns]


def _enlarged(values: np.ndarray, pixels: Pixels) -> np.ndarray:
    """A map (h, w) float32 at the size of a picture, smoothly."""
    size = (pixels.shape[1], pixels.shape[0])
    return np.asarray(Image.fromarray(values, mode="F").resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _uint8(values: np.ndarray) -> Pixels:
    return (255 * values).round().clip(0, 255).astype(np.uint8)
