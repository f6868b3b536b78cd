"""The component picture: rows of tiles, the component lit, a cross on the query."""

import numpy as np
import pytest
from PIL import Image

from hcl.figures.components import Row, Tile, draw_components


def tile(cell: tuple[int, int], size: tuple[int, int] = (160, 120)) -> Tile:
    member = np.zeros((6, 8), dtype=bool)
    member[cell] = True
    return Tile(Image.new("RGB", size, (0, 200, 0)), cell, member)


def drawn(path, rows: list[Row], matches: int) -> np.ndarray:
    draw_components(path, rows, matches)
    return np.asarray(Image.open(path)).astype(int)


def test_a_picture_has_a_line_a_query(tmp_path):
    rows = [Row(tile((2, 3)), [tile((1, 1))] * 2, "cluster 7") for _ in range(3)]
    three = drawn(tmp_path / "new" / "three.png", rows, 2)
    one = drawn(tmp_path / "one.png", rows[:1], 2)
    assert len(three) == 3 * len(one)
    assert np.array_equal(three[: len(one)], one)


def test_a_row_may_have_fewer_matches_than_there_is_room_for(tmp_path):
    full = drawn(tmp_path / "full.png", [Row(tile((2, 3)), [tile((1, 1))] * 2, "")], 2)
    bare = drawn(tmp_path / "bare.png", [Row(tile((2, 3)), [], "")], 2)
    assert bare.shape == full.shape
    assert (bare[:, -150:] == 255).all()
    assert (full[:, -150:] != 255).any()


@pytest.mark.parametrize("cell", [(0, 0), (5, 7), (3, 4)])
def test_the_token_is_lit_wherever_it_lies(tmp_path, cell):
    picture = drawn(tmp_path / "picture.png", [Row(tile(cell), [tile(cell)], "")], 1)
    match = picture[:, -196:]
    lit = (match == [0, 200, 0]).all(axis=2)
    shaded = (match == [0, 90, 0]).all(axis=2)
    assert 0.01 < lit.mean() < 0.2
    assert shaded.mean() > 0.4
    assert (picture == [255, 0, 0]).all(axis=2).any()


def test_narrow_images_are_shown_too(tmp_path):
    narrow = tile((5, 7), (300, 6))
    assert drawn(tmp_path / "picture.png", [Row(narrow, [narrow], "")], 1).std() > 0
