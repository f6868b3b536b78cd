from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hcl.data.samples import Dataset, Sample
from kernels.views import photometric_views
from kernels.views.reference import GREY
from pipelines.draws import ViewsConfig, draw_views
from pipelines.normalise import MEAN, PIXEL_MEAN, PIXEL_STD, STD
from pipelines.training_views import TrainingViews
from tests.pipelines.conftest import smooth_image

PLAIN = ViewsConfig(size=32, color_probability=0, blur_probability=0)
ALL = [np.arange(6)]


YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])


def resampling(source, target):
    """(target, source) weights of a triangle filter, widened when shrinking; border pixels go on for ever."""
    scale = source / target
    support = max(scale, 1.0)
    taps = np.arange(-int(support) - 2, source + int(support) + 2)
    distance = np.abs((np.arange(target)[:, None] + 0.5) * scale - (taps + 0.5)) / support
    weights = np.clip(1 - distance, 0, None)
    table = np.zeros((target, source))
    np.add.at(table.T, np.clip(taps, 0, source - 1), weights.T)
    return table / weights.sum(axis=1, keepdims=True)


def resized(pixels, size):
    rows, columns = (resampling(extent, size) for extent in pixels.shape[:2])
    return np.einsum("yh,xw,hwc->yxc", rows, columns, pixels, optimize=True)


def doubled_crop(path, crop, size):
    image = np.asarray(Image.open(path), np.float32)
    side = int(np.floor(crop[0] * min(image.shape[:2]) + 0.5))
    top, left = (
        int(share * (extent - side + 1)) for share, extent in zip(crop[1:], image.shape[:2], strict=True)
    )
    return resized(image[top : top + side, left : left + side], 2 * size)


def finished(pixels, size):
    return np.moveaxis((resized(pixels, size) / 255 - MEAN) / STD, 2, 0)


def brightness(pixels, factor):
    return np.clip(pixels * factor, 0, 255)


def contrast(pixels, factor):
    grey = (pixels @ np.array(GREY, np.float32)).mean()
    return np.clip(factor * pixels + (1 - factor) * grey, 0, 255)


def saturation(pixels, factor):
    return np.clip(pixels @ (np.linalg.inv(YIQ) @ np.diag([1, factor, factor]) @ YIQ).T, 0, 255)


def hue(pixels, degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    return np.clip(pixels @ (np.linalg.inv(YIQ) @ turn @ YIQ).T, 0, 255)


def views_of(images, config, epoch=0, batches=ALL, views=(1, 2), **settings):
    made = TrainingViews(images, config, seed=7, **settings).batches(epoch, batches, views)
    return [torch.stack(batch.views) for batch in made]


def test_without_jitter_a_view_is_the_drawn_crop_resized_and_normalised(images):
    (made,) = views_of(images, PLAIN)
    for index, sample in enumerate(images.samples):
        crop = draw_views(PLAIN, 7, 0, index).crop
        expected = finished(doubled_crop(sample.image, crop, 32), 32)
        for view in made[:, index]:
            np.testing.assert_allclose(view.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "column", "formula"),
    [
        ("brightness", 0, brightness),
        ("contrast", 1, contrast),
        ("saturation", 2, saturation),
        ("hue", 3, hue),
    ],
)
def test_color_steps_are_those_of_section_6(images, name, column, formula):
    off = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    config = replace(PLAIN, color_probability=1, **(off | {name: 0.4}))
    (made,) = views_of(images, config)
    for index, sample in enumerate(images.samples):
        draws = draw_views(config, 7, 0, index)
        for view in range(2):
            pixels = formula(doubled_crop(sample.image, draws.crop, 32), draws.photometric[view, column])
            np.testing.assert_allclose(made[view, index].numpy(), finished(pixels, 32), atol=1e-4)


def test_the_color_steps_follow_each_other_in_order(images):
    config = replace(PLAIN, color_probability=1, brightness=0.9, contrast=0.9, saturation=0.9, hue=0.5)
    (made,) = views_of(images, config)
    for index, sample in enumerate(images.samples):
        draws = draw_views(config, 7, 0, index)
        pixels = doubled_crop(sample.image, draws.crop, 32)
        for step, factor in zip((brightness, contrast, saturation, hue), draws.photometric[0], strict=False):
            pixels = step(pixels, factor)
        np.testing.assert_allclose(made[0, index].numpy(), finished(pixels, 32), atol=1e-4)


def test_saturation_is_torchvisions_but_for_the_digits_of_yiq():
    pixels = np.random.default_rng(0).uniform(0, 255, (50, 50, 3))
    grey = (pixels @ np.array(GREY))[..., None]
    for factor in (0.0, 0.7, 1.0, 1.3):
        expected = np.clip(factor * pixels + (1 - factor) * grey, 0, 255)
        assert np.abs(saturation(pixels, factor) - expected).max() <= 0.003 * 255


def test_blur_is_gaussian_on_the_doubled_crop(images):
    config = replace(PLAIN, blur_probability=1, blur_sigma=(1.5, 1.5))
    (made,) = views_of(images, config)
    offsets = np.arange(-5, 6)
    kernel = np.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel /= kernel.sum()
    for index, sample in enumerate(images.samples):
        pixels = doubled_crop(sample.image, draw_views(config, 7, 0, index).crop, 32)
        for axis in (0, 1):
            pad = [(5, 5) if a == axis else (0, 0) for a in range(3)]
            padded = np.pad(pixels, pad, mode="reflect")
            windows = np.lib.stride_tricks.sliding_window_view(padded, 11, axis=axis)
            pixels = (windows @ kernel).astype(np.float32)
        np.testing.assert_allclose(made[0, index].numpy(), finished(pixels, 32), atol=1e-4)


def test_the_operation_for_gpus_makes_the_same_views(images):
    config = ViewsConfig(size=32, color_probability=0.9, grayscale_probability=0.3)
    (expected,) = views_of(images, config)
    draws = [draw_views(config, 7, 0, index) for index in range(len(images))]
    doubled = [
        doubled_crop(sample.image, drawn.crop, 32)
        for sample, drawn in zip(images.samples, draws, strict=True)
    ]
    photometric = torch.from_numpy(np.stack([drawn.photometric for drawn in draws], axis=1))
    made = photometric_views(
        torch.from_numpy(np.stack(doubled)).float(), photometric, PIXEL_MEAN, PIXEL_STD, impl="torch"
    )
    assert photometric[..., 4].gt(0).any()
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


def test_grayscale_leaves_no_colour(images):
    (made,) = views_of(images, replace(PLAIN, grayscale_probability=1))
    pixels = made * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert (pixels.amax(dim=2) - pixels.amin(dim=2)).max() <= 0.003


def test_the_crop_is_shared_and_the_jitter_is_not(images):
    (made,) = views_of(images, ViewsConfig(size=32))
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_view_has_the_same_bits_in_every_batch_order_and_thread_count(images, threads):
    config = ViewsConfig(size=32)
    (expected,) = views_of(images, config)
    batches = [np.array([4, 0, 5]), np.array([2]), np.array([3, 1])]
    made = views_of(images, config, batches=batches, threads=threads)
    for indices, views in zip(batches, made, strict=True):
        assert torch.equal(views, expected[:, indices])


def test_one_view_alone_is_the_same_as_with_the_other(images):
    config = ViewsConfig(size=32)
    (both,) = views_of(images, config, epoch=2)
    for view in (1, 2):
        (alone,) = views_of(images, config, epoch=2, views=(view,))
        assert torch.equal(alone[0], both[view - 1])


def test_an_object_serves_epoch_after_epoch_and_can_repeat_one(images):
    views = TrainingViews(images, ViewsConfig(size=32), seed=7)
    batches = [np.array([0, 1, 2]), np.array([3, 4])]

    def epoch(number):
        return torch.cat([batch.views[1] for batch in views.batches(number, batches)])

    first, second, again = epoch(0), epoch(1), epoch(0)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_tensors_stay_what_they_were_when_more_batches_come(images):
    made = TrainingViews(images, PLAIN, seed=7).batches(0, [np.array([i]) for i in range(6)])
    first = next(made).views[0]
    kept = first.clone()
    for _ in made:
        pass
    assert torch.equal(first, kept)


@pytest.mark.parametrize("views", [(), (0,), (1, 3)])
def test_other_views_than_1_and_2_are_refused(images, views):
    with pytest.raises(ValueError, match="views must be 1 or 2"):
        TrainingViews(images, PLAIN, seed=7).batches(0, ALL, views)


@pytest.mark.parametrize("views", [(1, 2), (2,)])
def test_views_of_kept_images_have_the_same_bits(images, views):
    config = ViewsConfig(size=32)
    batches = [np.array([4, 0, 5]), np.array([2]), np.array([3, 1])]
    decoded = views_of(images, config, batches=batches, views=views)
    kept = views_of(images, config, batches=batches, views=views, keep_images=True)
    assert all(map(torch.equal, kept, decoded))


def test_views_of_jpegs_have_the_same_bits_whether_decoded_whole_or_in_part(jpegs):
    """At the border of a part the colours of a JPEG could be interpolated otherwise."""
    (decoded,), (kept,) = (views_of(jpegs, PLAIN, keep_images=keep) for keep in (False, True))
    assert torch.equal(kept, decoded)


@pytest.mark.gpu
@pytest.mark.parametrize("keep_images", [False, True])
def test_views_on_a_gpu_are_those_of_the_cpu(images, keep_images):
    pytest.importorskip("nvidia.dali")
    config = ViewsConfig(size=32)
    (on_cpu,) = views_of(images, config)
    (on_gpu,) = views_of(images, config, device="cuda", keep_images=keep_images)
    assert on_gpu.is_cuda
    np.testing.assert_allclose(on_gpu.cpu().numpy(), on_cpu.numpy(), atol=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("keep_images", [False, True])
def test_jpegs_on_a_gpu_have_the_colours_of_the_cpu(jpegs, keep_images):
    pytest.importorskip("nvidia.dali")
    (on_cpu,) = views_of(jpegs, PLAIN)
    (on_gpu,) = views_of(jpegs, PLAIN, device="cuda", keep_images=keep_images)
    off = (on_gpu.cpu() - on_cpu).abs() * 255 * torch.tensor(STD)[:, None, None]
    assert off.mean() < 0.5
    assert off.max() < 4


def test_a_crop_has_at_least_one_pixel(tmp_path):
    Image.fromarray(np.full((3, 4, 3), 200, np.uint8)).save(tmp_path / "small.png")
    small = Dataset("small", [Sample(tmp_path / "small.png", None, "small.png")])
    config = replace(PLAIN, crop_scale=(0.1, 0.1))
    (views,) = views_of(small, config, batches=[np.array([0])])
    np.testing.assert_allclose(views[0, 0, :, 5, 5], (200 / 255 - np.array(MEAN)) / STD, atol=1e-4)


def test_what_a_photograph_says_of_its_orientation_changes_nothing(tmp_path):
    pixels, exif = smooth_image(90, 60, seed=3), Image.Exif()
    exif[0x0112] = 6  # to be turned by a right angle when shown
    pixels.save(tmp_path / "upright.jpg")
    pixels.save(tmp_path / "turned.jpg", exif=exif)
    names = ("upright.jpg", "turned.jpg")
    found = []
    for name in names:
        dataset = Dataset("d", [Sample(tmp_path / name, None, name)])
        found.append(views_of(dataset, PLAIN, batches=[np.array([0])])[0])
    assert torch.equal(*found)
