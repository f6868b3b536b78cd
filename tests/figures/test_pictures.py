"""Pictures show what they are given, where it is."""

import base64
import io

import numpy as np
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


def test_a_crop_has_its_token_in_the_middle_also_at_the_border():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0:2, 6:8] = 200
    cut = crop(pixels, Cell(0, 3), (4, 4), context=1)
    assert cut.shape == (6, 6, 3)
    assert (cut[2:4, 2:4] == 255).all()
    assert (cut[0:2, 2:6] == 200).all()
    assert (cut[4:, :] == 0).all()
    assert (pixels[0:2, 6:8] == 200).all()


def test_layers_are_clear_where_they_should_be():
    shade = decoded(overlay_uri(shade_layer(np.array([[True, False]]))))
    assert shade[0, 0, 3] == 0
    assert shade[0, 1, 3] > 150
    warm = heat_layer(np.array([[0.0, 1.0]]))
    assert warm[0, 1, 3] > warm[0, 0, 3]
