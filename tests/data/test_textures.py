"""Textures are patterns that can be told from each other."""

import numpy as np

from hcl.data.textures import textures


def test_textures_are_of_one_size_and_bounded_and_differ():
    drawn = textures(96)
    for texture in drawn.values():
        assert texture.shape == (96, 96)
        assert abs(texture).max() <= 1
        assert texture.std() > 0.1
    flat = np.corrcoef([texture.ravel() for texture in drawn.values()])
    assert (flat - np.eye(len(drawn))).max() < 0.9
