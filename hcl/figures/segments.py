"""A segmented photograph: its map of labels, the map laid over it, and the legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

STRENGTH = 0.5
"""Opacity of the labels' colours in an overlay."""
SMALL = 0.01
"""Segments below this share of the picture get no name."""
UNNAMED = "background"
LEGEND_ROWS = 32
"""Maximum number of labels in a column of a legend."""
NAMING_SIDE = 256
"""Maximum longer side of the subsampled map in which the positions of names are searched."""


def label_map(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Return labels (H, W) uint8 as an image with the palette ``colours`` (labels, 3) uint8."""
    image = Image.fromarray(labels)
    image.putpalette(colours.tobytes())
    return image


def overlay(
    picture: Image.Image, labels: np.ndarray, colours: np.ndarray, names: Sequence[str] | None = None
) -> Image.Image:
    """Blend a photograph with the colours of its labels, with light lines between segments.

    Args:
        picture: RGB.
        labels: (H, W) uint8, of the picture's size.
        colours: (labels, 3) uint8.
        names: names of the labels, to write into their larger segments; None to write no names.
    """
    image = Image.blend(picture, label_map(labels, colours).convert("RGB"), STRENGTH)
    image.paste((255, 255, 255), mask=_borders(labels))
    if names is not None:
        _write_names(image, labels, names)
    return image


def legend(names: Sequence[str], colours: np.ndarray) -> Image.Image:
    """Draw columns with a row for each label: its colour, from (labels, 3) uint8, and its name."""
    row, font = 32, ImageFont.load_default(18)
    width = row + 24 + max(round(font.getlength(name)) for name in names)
    columns = -(-len(names) // LEGEND_ROWS)
    image = Image.new("RGB", (columns * width, row * min(len(names), LEGEND_ROWS) + 8), "white")
    draw = ImageDraw.Draw(image)
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        left, top = width * (number // LEGEND_ROWS), 4 + row * (number % LEGEND_ROWS)
        box = (left + 8, top + 4, left + row, top + row - 4)
        draw.rectangle(box, fill=tuple(colour.tolist()), outline="black")
        draw.text((left + row + 12, top + row // 2), name, fill="black", font=font, anchor="lm")
    return image


def _borders(labels: np.ndarray) -> Image.Image:
    """Return a mask of the lines between labels, thick enough to be visible in the whole picture."""
    border = np.zeros(labels.shape, dtype=np.uint8)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    width = max(labels.shape) // 1000
    mask = Image.fromarray(border * np.uint8(200))
    return mask.filter(ImageFilter.MaxFilter(2 * width + 1)) if width else mask


def _write_names(image: Image.Image, labels: np.ndarray, names: Sequence[str]) -> None:
    step = -(-max(labels.shape) // NAMING_SIDE)
    small = labels[step // 2 :: step, step // 2 :: step]
    draw = ImageDraw.Draw(image)
    size = max(max(image.size) // 32, 10)
    font = ImageFont.load_default(size)
    for label in np.unique(small):
        if names[label] == UNNAMED:
            continue
        for row, column in _inner_places(small == label):
            place = (column * step + step // 2, row * step + step // 2)
            draw.text(
                place, names[label], "white", font, anchor="mm", stroke_width=size // 8, stroke_fill="black"
            )


def _inner_places(member: np.ndarray) -> list[tuple[int, int]]:
    """Return the innermost cell (row, column) of each larger component of a mask (h, w)."""
    components, _ = ndimage.label(member)
    sizes = np.bincount(components.ravel())[1:]
    places = []
    for number in np.flatnonzero(sizes >= SMALL * member.size) + 1:
        depth = ndimage.distance_transform_cdt(np.pad(components == number, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        places.append((int(row), int(column)))
    return places
