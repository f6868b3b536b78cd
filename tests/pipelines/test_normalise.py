"""Colours are normalised as the backbones were trained on them."""

from pipelines.normalise import MEAN, STD


def test_mean_and_deviation_are_imagenets_red_first():
    assert MEAN == (0.485, 0.456, 0.406)
    assert STD == (0.229, 0.224, 0.225)
