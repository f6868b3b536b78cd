"""Pictures show what they are given, where it is."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from hcl.figures.pictures import (
    Cell,
    coloured,
    crop,
    data_uri,
    heat,
    heat_layer,
    lit,
    overlay_uri,
    shade_layer,
    window,
)

GREY = np.full((8, 12, 3), 128, np.uint8)


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_a_picture_is_made_small_in_its_own_shape():
    assert decoded(data_uri(GREY, 6)).shape == (4, 6, 3)


def test_heat_is_bright_where_values_are_high():
    values = np.zeros((2, 3))
    values[1, 2] = 7
    light = heat(GREY, values).sum(axis=2)
    assert light.argmax() // 12 >= 4
    assert light[7, 11] > 2 * light[0, 0]
    assert np.isfinite(heat(GREY, np.ones((2, 3)))).all()


def test_what_lies_outside_of_the_mask_is_in_the_shade():
    mask = np.array([[True, False, False]])
    assert (lit(GREY, mask)[:, :4] == 128).all()
    assert (lit(GREY, mask)[:, 4:] < 64).all()


def test_colours_lie_over_their_cells():
    colours = np.zeros((1, 2, 3))
    colours[0, 1] = (1, 0, 0)
    picture = coloured(GREY, colours, strength=1)
    assert (picture[:, 6:] == (255, 0, 0)).all()
    assert (picture[:, :6] == 0).all()


@pytest.mark.parametrize(
    ("cell", "frame"), [(Cell(0, 3), (0, 4)), (Cell(2, 1), (2, 2)), (Cell(3, 0), (4, 0))]
)
def test_a_crop_lies_inside_the_picture_with_its_token_in_a_frame(cell, frame):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, axis=2)
    cut = crop(pixels, cell, (4, 4), context=1)
    row, column = frame
    expected = pixels[2 * cell.row - row :, 2 * cell.column - column :][:6, :6].copy()
    expected[row : row + 2, column : column + 2] = 255
    assert (cut == expected).all()
    assert pixels.max() == 63


def test_a_window_is_no_larger_than_its_image():
    assert window((0, 9), (1, 10), (20, 100), 50) == (80, 0, 100, 20)
    assert window((1, 1), (4, 4), (40, 40), 20) == (5, 5, 25, 25)


def test_layers_are_clear_where_they_should_be():
    shade = decoded(overlay_uri(shade_layer(np.array([[True, False]]))))
    assert shade[0, 0, 3] == 0
    assert shade[0, 1, 3] > 150
    warm = heat_layer(np.array([[0.0, 1.0]]))
    assert warm[0, 1, 3] > warm[0, 0, 3]
