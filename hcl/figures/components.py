"""The component picture: query tokens, marked by a cross, next to similar tokens of other images."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hcl.figures.colours import as_bytes
from hcl.figures.pictures import centre, lit, stretched, window
from hcl.files import written_whole

SIDE = 190
GAP = 6
CAPTION = 20
LIGHT = 0.45
"""Share of the brightness that is left outside of a match's component."""
WINDOW = 0.45
"""Side of the square that is shown around a match, as a share of its image's shorter side."""
LEAST = 7
"""Minimum side of that square, in tokens."""


class Tile(NamedTuple):
    """A token in its image, and the tokens that belong to the same component.

    Attributes:
        image: RGB.
        cell: row and column of the token.
        member: (h, w) bool, true for the tokens of the component, on the grid that covers the image.
    """

    image: Image.Image
    cell: tuple[int, int]
    member: np.ndarray

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.member.shape[0], self.member.shape[1]


class Row(NamedTuple):
    """A query, its matches, and the caption above them."""

    query: Tile
    matches: Sequence[Tile]
    caption: str


def draw_components(path: Path, rows: Iterable[Row], matches: int) -> None:
    """Draw a row for each query: its image with a cross, then the surroundings of the matches.

    Args:
        path: path of the PNG file.
        rows: rows to draw; read one after the other, so that only one row's images are in memory at a time.
        matches: maximum number of matches in a row.
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
    """Draw the whole image within a box (width, height), its component lit and a cross on the token."""
    scale = min(box[0] / tile.image.width, box[1] / tile.image.height)
    size = (max(round(tile.image.width * scale), 1), max(round(tile.image.height * scale), 1))
    image = _lit(tile, (0, 0, *tile.image.size), size, light=0.65)
    x, y = centre(tile.cell, tile.grid, (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    for colour, width in (("white", 5), ("red", 3)):
        for slope in (-1, 1):
            draw.line((x - 8, y - 8 * slope, x + 8, y + 8 * slope), fill=colour, width=width)
    return image


def _around(tile: Tile) -> Image.Image:
    """Draw a square around the token, with the component lit."""
    width, height = tile.image.size
    patch = max(height / tile.grid[0], width / tile.grid[1])
    side = max(WINDOW * min(width, height), LEAST * patch)
    return _lit(tile, window(tile.cell, tile.grid, (height, width), side), (SIDE, SIDE), light=LIGHT)


def _lit(
    tile: Tile, box: tuple[float, float, float, float], size: tuple[int, int], light: float
) -> Image.Image:
    """Draw a part of the image at a size (width, height), its component lit and outlined."""
    pixels = np.asarray(tile.image)
    picture = Image.fromarray(lit(pixels, tile.member, light))
    picture = picture.resize(size, Image.Resampling.LANCZOS, box=box)
    member = Image.fromarray(as_bytes(stretched(tile.member, pixels)))
    member = member.resize(size, Image.Resampling.NEAREST, box=box)
    line = Image.fromarray(np.asarray(member.filter(ImageFilter.MaxFilter(5))) - np.asarray(member))
    picture.paste((255, 220, 60), mask=line)
    return picture
