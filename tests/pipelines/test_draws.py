import numpy as np
import pytest

from pipelines.draws import PROBE, VIEWS, ProbeConfig, ViewsConfig, _generator, draw_probe, draw_views

COUNT = 4000


@pytest.fixture(scope="module")
def photometric():
    return np.stack([draw_views(ViewsConfig(), 7, 0, index).photometric for index in range(COUNT)])


def test_draws_depend_on_seed_epoch_and_index_alone():
    first = draw_views(ViewsConfig(), 7, 3, 5)
    draw_views(ViewsConfig(), 1, 1, 1)
    again = draw_views(ViewsConfig(), 7, 3, 5)
    np.testing.assert_array_equal(first.crop, again.crop)
    np.testing.assert_array_equal(first.photometric, again.photometric)
    for other in [(8, 3, 5), (7, 4, 5), (7, 3, 6), (7, 5, 3)]:
        assert not np.array_equal(first.crop, draw_views(ViewsConfig(), *other).crop)


def test_crops_fill_their_range():
    crops = np.stack([draw_views(ViewsConfig(), 7, 0, index).crop for index in range(COUNT)])
    np.testing.assert_allclose(crops.min(axis=0), [0.8, 0, 0], atol=2e-3)
    np.testing.assert_allclose(crops.max(axis=0), [1, 1, 1], atol=2e-3)
    np.testing.assert_allclose(crops.mean(axis=0), [0.9, 0.5, 0.5], atol=0.02)


@pytest.mark.parametrize(
    ("column", "low", "high", "identity", "probability"),
    [
        (0, 0.7, 1.3, 1, 0.8),
        (1, 0.7, 1.3, 1, 0.8),
        (2, 0.7, 1.3, 1, 0.8),
        (3, -36, 36, 0, 0.8),
        (4, 0.1, 2, 0, 0.5),
    ],
)
def test_photometric_draws_have_their_range_and_probability(
    photometric, column, low, high, identity, probability
):
    values = photometric[..., column]
    applied = values[values != identity]
    assert applied.size / values.size == pytest.approx(probability, abs=0.03)
    assert low <= applied.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < applied.max() <= high + 1e-6
    assert applied.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_the_views_draw_apart(photometric):
    first, second = photometric[:, 0, 0], photometric[:, 1, 0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    applied = photometric[..., 4] > 0
    assert (applied[:, 0] != applied[:, 1]).mean() == pytest.approx(0.5, abs=0.03)


def test_purposes_draw_apart():
    assert _generator(VIEWS, 7, 3, 5).random() != _generator(PROBE, 7, 3, 5).random()


def test_the_widest_blur_that_fits_is_taken():
    assert ViewsConfig(size=7, blur_sigma=(0.1, 4.0)).blur_sigma == (0.1, 4.0)
    with pytest.raises(ValueError, match=r"blur_sigma.*4\.1.*4\.0"):
        ViewsConfig(size=7, blur_sigma=(0.1, 4.1))


def test_grayscale_is_off_unless_set(photometric):
    assert not photometric[..., 5].any()
    config = ViewsConfig(grayscale_probability=0.25)
    gray = np.stack([draw_views(config, 7, 0, index).photometric[:, 5] for index in range(1000)])
    assert set(np.unique(gray)) == {0, 1}
    assert gray.mean() == pytest.approx(0.25, abs=0.04)


def test_probe_draws_have_their_ranges():
    draws = np.array([draw_probe(ProbeConfig(), 7, 0, index) for index in range(COUNT)], np.float64)
    np.testing.assert_allclose(draws.min(axis=0), [0.75, -10, 0, 0, 0, 0], atol=0.02)
    np.testing.assert_allclose(draws.max(axis=0), [1.25, 10, 1, 1, 1, 1], atol=0.02)
    np.testing.assert_allclose(draws.mean(axis=0), [1, 0, 0.5, 0.5, 0.5, 0.5], atol=0.2)
    assert draw_probe(ProbeConfig(), 7, 1, 5) == draw_probe(ProbeConfig(), 7, 1, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (1.0, 0.8)},
        {"blur_sigma": (0.0, 2.0)},
        {"hue": 0.6},
        {"contrast": 1.5},
        {"blur_probability": -0.1},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ViewsConfig(**wrong)
