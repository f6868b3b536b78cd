"""Overlays, label maps and legends show the labels they were given."""

import numpy as np
from PIL import Image

from hcl.figures.segments import label_map, legend, overlay

COLOURS = np.array([[0, 0, 0], [250, 0, 0], [0, 0, 250]], dtype=np.uint8)


def halves(height: int = 60, width: int = 80) -> np.ndarray:
    labels = np.ones((height, width), dtype=np.uint8)
    labels[:, width // 2 :] = 2
    return labels


def test_a_map_keeps_labels_and_colours(tmp_path):
    label_map(halves(), COLOURS).save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert np.array_equal(np.asarray(image), halves())
        assert image.convert("RGB").getpixel((70, 5)) == (0, 0, 250)


def test_an_overlay_lays_colours_over_the_picture_and_a_line_between_them():
    picture = Image.new("RGB", (80, 60), (100, 100, 100))
    laid = np.asarray(overlay(picture, halves(), COLOURS)).astype(int)
    assert np.abs(laid[30, 10] - [175, 50, 50]).max() <= 1
    assert np.abs(laid[30, 70] - [50, 50, 175]).max() <= 1
    assert laid[30, 40].min() > 180
    assert laid.shape == (60, 80, 3)


def test_names_stand_in_the_segments_that_are_large_enough():
    labels = halves(120, 160)
    labels[:3, :3] = 0
    picture = Image.new("RGB", (160, 120), (100, 100, 100))
    plain = np.asarray(overlay(picture, labels, COLOURS)).astype(int)
    named = np.asarray(overlay(picture, labels, COLOURS, ["speck", "left", "right"])).astype(int)
    written = np.abs(named - plain).max(axis=2) > 30
    assert written[:, :80].any()
    assert written[:, 80:].any()
    assert not written[:10].any()
    unnamed = overlay(picture, labels, COLOURS, ["speck", "background", "background"])
    assert np.array_equal(np.asarray(unnamed), plain)


def test_a_legend_shows_every_colour():
    shown = np.asarray(legend(["a", "b", "a long name"], COLOURS))
    for colour in COLOURS:
        assert (shown == colour).all(axis=2).sum() > 100


def test_a_legend_of_many_labels_has_columns():
    colours = np.stack([np.arange(100)] * 3, axis=1).astype(np.uint8) + 50
    shown = legend([f"cluster {number}" for number in range(100)], colours)
    assert shown.height < 33 * 32
    assert all((np.asarray(shown) == colour).all(axis=2).sum() > 100 for colour in colours)
