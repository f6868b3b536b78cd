"""The component picture: query tokens, each with a cross, and beside them the like tokens of other images."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hcl.files import written_whole

SIDE = 190
GAP = 6
CAPTION = 20
SHADE = 0.45
"""Share of its light that is left to what does not belong to a component."""
WINDOW = 0.45
"""Side of what is shown around a match, as a share of its image's shorter side."""
LEAST = 7
"""And at least so many tokens."""


class Tile(NamedTuple):
    """A token in its image, and the tokens that belong with it.

    Attributes:
        image: RGB.
        cell: row and column of the token.
        member: (h, w) bool, on the grid that covers the image.
    """

    image: Image.Image
    cell: tuple[int, int]
    member: np.ndarray


class Row(NamedTuple):
    """A query, its matches, and what is written above them."""

    query: Tile
    matches: Sequence[Tile]
    caption: str


def draw_components(path: Path, rows: Iterable[Row], matches: int) -> None:
    """Draw a line for each query: its image with a cross, then the surroundings of the matches.

    Args:
        path: of the PNG file.
        rows: asked for one after the other, so that one row's images are in memory at a time.
        matches: the most that a row has.
    """
    strips = [_strip(row, matches) for row in rows]
    picture = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        picture.paste(strip, (0, top))
        top += strip.height
    with written_whole(path) as file:
        picture.save(file, format="PNG")


def _strip(row: Row, matches: int) -> Image.Image:
    query_width = SIDE * 3 // 2
    width = query_width + matches * (SIDE + GAP) + 2 * GAP
    strip = Image.new("RGB", (width, SIDE + CAPTION + GAP), "white")
    draw = ImageDraw.Draw(strip)
    draw.text((GAP, 2), row.caption, fill="black", font=ImageFont.load_default(13))
    query = _with_cross(row.query, (query_width, SIDE))
    strip.paste(query, (GAP + (query_width - query.width) // 2, CAPTION + (SIDE - query.height) // 2))
    for number, tile in enumerate(row.matches):
        strip.paste(_around(tile), (2 * GAP + query_width + number * (SIDE + GAP), CAPTION))
    return strip


def _with_cross(tile: Tile, box: tuple[int, int]) -> Image.Image:
    """The whole image within a box, its component lit, a cross on the token."""
    scale = min(box[0] / tile.image.width, box[1] / tile.image.height)
    size = (max(round(tile.image.width * scale), 1), max(round(tile.image.height * scale), 1))
    image = _lit(tile, (0, 0, *tile.image.size), size, shade=0.65)
    x, y = _centre(tile, size)
    draw = ImageDraw.Draw(image)
    for colour, width in (("white", 5), ("red", 3)):
        for slope in (-1, 1):
            draw.line((x - 8, y - 8 * slope, x + 8, y + 8 * slope), fill=colour, width=width)
    return image


def _around(tile: Tile) -> Image.Image:
    """A square around the token, what belongs to the component lit."""
    width, height = tile.image.size
    patch = max(height / tile.member.shape[0], width / tile.member.shape[1])
    side = min(max(WINDOW * min(width, height), LEAST * patch), width, height)
    x, y = _centre(tile, tile.image.size)
    left, top = min(max(x - side / 2, 0), width - side), min(max(y - side / 2, 0), height - side)
    return _lit(tile, (left, top, left + side, top + side), (SIDE, SIDE), shade=SHADE)


def _centre(tile: Tile, size: tuple[int, int]) -> tuple[float, float]:
    """Where the middle of the token is in an image of a size (width, height)."""
    (row, column), (rows, columns) = tile.cell, tile.member.shape
    return (column + 0.5) * size[0] / columns, (row + 0.5) * size[1] / rows


def _lit(
    tile: Tile, box: tuple[float, float, float, float], size: tuple[int, int], shade: float
) -> Image.Image:
    """A part of the image at a size: the component lit, with a line around it, the rest in the shade."""
    picture = tile.image.resize(size, Image.Resampling.LANCZOS, box=box)
    member = _cut(tile, box, size)
    dark = Image.blend(Image.new("RGB", size), picture, shade)
    dark.paste(picture, mask=member)
    line = Image.fromarray(np.asarray(member.filter(ImageFilter.MaxFilter(5))) - np.asarray(member))
    dark.paste((255, 220, 60), mask=line)
    return dark


def _cut(tile: Tile, box: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    """The component's mask in a part of the image, at a size, by nearest neighbour."""
    (rows, columns), (width, height) = tile.member.shape, tile.image.size
    x = box[0] + (np.arange(size[0]) + 0.5) * (box[2] - box[0]) / size[0]
    y = box[1] + (np.arange(size[1]) + 0.5) * (box[3] - box[1]) / size[1]
    row = (y * rows / height).astype(int).clip(0, rows - 1)
    column = (x * columns / width).astype(int).clip(0, columns - 1)
    return Image.fromarray(tile.member[row[:, None], column].astype(np.uint8) * np.uint8(255))
