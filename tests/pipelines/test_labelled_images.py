from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.draws import ProbeConfig, ProbeDraws
from pipelines.labelled_images import EvaluationImages, ProbeViews, source_of_target
from pipelines.normalise import MEAN, STD

STILL = ProbeConfig(scale=(1.0, 1.0), rotation=0.0, blur_probability=0.0, flip_probability=0.0)


def blocks(height, width, seed=0):
    """Class ids 0 to 4 in blocks of at least 10 pixels."""
    ids = np.random.default_rng(seed).integers(0, 5, (height // 10 + 1, width // 10 + 1))
    return np.kron(ids, np.ones((10, 10), int))[:height, :width].astype(np.uint8)


def grey_of(images):
    """The green channel in [0, 255]."""
    return 255 * (images[:, 1] * STD[1] + MEAN[1])


def test_resize_is_that_of_pil_for_masks_too(labelled):
    masks = [blocks(70, 90), blocks(50, 41, seed=1)]
    dataset = labelled(*masks)
    (batch,) = EvaluationImages(dataset, size=48)
    for i, mask in enumerate(masks):
        nearest = Image.fromarray(mask).resize((48, 48), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(batch.labels[i], np.asarray(nearest))
        linear = Image.fromarray(mask * np.float32(40)).resize((48, 48), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(grey_of(batch.images)[i], np.asarray(linear), atol=1e-2)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (40, 40)])
def test_shorter_crop_takes_the_centre_of_image_and_mask(labelled, shape):
    mask = blocks(*shape)
    (batch,) = EvaluationImages(labelled(mask), size=40, mode="shorter-crop")
    top, left = (shape[0] - 40) // 2, (shape[1] - 40) // 2
    expected = mask[top : top + 40, left : left + 40]
    np.testing.assert_array_equal(batch.labels[0], expected)
    np.testing.assert_allclose(grey_of(batch.images)[0], 40.0 * expected, atol=1e-2)


def test_chosen_images_come_in_the_order_given(labelled):
    dataset = labelled(*(blocks(30, 30, seed=i) for i in range(7)))
    images = EvaluationImages(dataset, size=16, batch_size=2, indices=[5, 0, 3])
    batches = list(images)
    assert len(batches) == len(images) == 2
    assert [index for batch in batches for index in batch.indices] == [5, 0, 3]
    everything = torch.cat([batch.images for batch in EvaluationImages(dataset, size=16)])
    assert torch.equal(torch.cat([batch.images for batch in batches]), everything[[5, 0, 3]])


def test_no_chosen_image_is_no_batch(labelled):
    assert list(EvaluationImages(labelled(blocks(30, 30)), size=16, indices=[])) == []


def test_images_come_again_in_the_same_order(labelled):
    images = EvaluationImages(labelled(*(blocks(30, 40, seed=i) for i in range(5))), size=16, batch_size=2)
    first, second = list(images), list(images)
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(first, second, strict=True)
    )
    assert torch.cat([batch.labels for batch in first]).unique(dim=0).shape[0] == 5


def test_without_masks_there_are_no_labels(images):
    batches = list(EvaluationImages(images, size=16, batch_size=4))
    assert [batch.images.shape for batch in batches] == [(4, 3, 16, 16), (2, 3, 16, 16)]
    assert all(batch.labels is None for batch in batches)


def test_a_mask_of_another_size_is_an_error_with_both_names(labelled):
    dataset = labelled(blocks(30, 30), blocks(40, 30))
    swapped = replace(dataset.samples[0], label=dataset.samples[1].label)
    with pytest.raises(ValueError, match=r"1_mask\.png is 30x40.*0\.png is 30x30"):
        list(EvaluationImages(replace(dataset, samples=[swapped]), size=16))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 16, "mode": "crop"}, {"size": 16, "batch_size": 0}])
def test_wrong_settings_are_refused_by_name(labelled, wrong):
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        EvaluationImages(labelled(blocks(30, 30)), **wrong)


def test_a_probe_view_that_changes_nothing_is_the_evaluation_image(labelled):
    dataset = labelled(blocks(70, 90), blocks(50, 41, seed=1))
    (plain,) = EvaluationImages(dataset, size=48)
    (still,) = ProbeViews(dataset, STILL, size=48, seed=7).batches(0, [np.arange(2)])
    np.testing.assert_allclose(still.images, plain.images, atol=1e-5)
    assert torch.equal(still.labels, plain.labels)


def test_image_and_mask_of_a_probe_view_stay_together(labelled):
    masks = [np.kron(blocks(30, 30, seed=i), np.ones((4, 4), np.uint8)) for i in range(8)]
    config = ProbeConfig(scale=(0.75, 1.0), blur_probability=0.0)
    (batch,) = ProbeViews(labelled(*masks), config, size=120, seed=7).batches(3, [np.arange(8)])
    shown = batch.labels != 255
    off = (grey_of(batch.images) - 40.0 * batch.labels).abs() > 20
    assert 0.02 < 1 - shown.float().mean() < 0.5
    assert off[shown].float().mean() < 0.04  # only along the edges of blocks and of the picture
    uncovered = batch.images.permute(0, 2, 3, 1)[~shown]
    assert uncovered.abs().median() == 0


def test_probe_views_repeat_whatever_the_batches(labelled):
    dataset = labelled(*(blocks(40, 40, seed=i) for i in range(4)))
    views = ProbeViews(dataset, ProbeConfig(), size=32, seed=7)
    (whole,) = views.batches(1, [np.arange(4)])
    for indices in (np.array([3, 1]), np.array([2])):
        (part,) = views.batches(1, [indices])
        assert torch.equal(part.images, whole.images[indices])
        assert torch.equal(part.labels, whole.labels[indices])
    (other,) = views.batches(2, [np.arange(4)])
    assert not torch.equal(other.images, whole.images)


def test_blur_touches_the_image_only(labelled):
    dataset = labelled(blocks(40, 40))
    made = [
        next(
            ProbeViews(dataset, replace(STILL, blur_probability=p), size=40, seed=7).batches(
                0, [np.array([0])]
            )
        )
        for p in (0.0, 1.0)
    ]
    assert torch.equal(made[0].labels, made[1].labels)
    assert made[1].images.std() < made[0].images.std()


@pytest.mark.parametrize(
    ("draw", "target", "source"),
    [
        (ProbeDraws(1.0, 0.0, 0.3, 0.3, False, False), (10, 20), (10, 20)),
        (ProbeDraws(1.0, 0.0, 0.3, 0.3, True, False), (10, 20), (90, 20)),
        (ProbeDraws(2.0, 0.0, 0.0, 0.0, False, False), (10, 20), (5, 10)),
        (ProbeDraws(2.0, 0.0, 1.0, 0.5, False, False), (0, 0), (25, 50)),
        (ProbeDraws(0.5, 0.0, 0.9, 0.1, False, False), (25, 75), (0, 100)),
        (ProbeDraws(1.0, 90.0, 0.0, 0.0, False, False), (0, 0), (0, 100)),
    ],
)
def test_the_affine_map_zooms_turns_mirrors_and_crops(draw, target, source):
    np.testing.assert_allclose(source_of_target(draw, 100) @ [*target, 1], source, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["resize", "shorter-crop"])
def test_images_and_masks_on_a_gpu_are_those_of_the_cpu(labelled, mode):
    pytest.importorskip("nvidia.dali")
    dataset = labelled(blocks(70, 90), blocks(50, 61, seed=1))
    on_cpu, on_gpu = (
        next(iter(EvaluationImages(dataset, size=48, mode=mode, device=device))) for device in ("cpu", "cuda")
    )
    assert on_gpu.images.is_cuda
    assert on_gpu.labels.is_cuda
    assert torch.equal(on_gpu.labels.cpu(), on_cpu.labels)
    torch.testing.assert_close(on_gpu.images.cpu(), on_cpu.images, atol=0.02, rtol=0)


@pytest.mark.gpu
def test_probe_views_on_a_gpu_are_those_of_the_cpu(labelled):
    pytest.importorskip("nvidia.dali")
    # Of 64 pixels every third of 48 would lie between two, and either would be the nearest.
    dataset, batches = labelled(*(blocks(70, 90, seed) for seed in range(4))), [np.arange(4)]
    on_cpu, on_gpu = (
        next(ProbeViews(dataset, ProbeConfig(), size=48, seed=7, device=device).batches(0, batches))
        for device in ("cpu", "cuda")
    )
    assert (on_gpu.labels.cpu() == on_cpu.labels).float().mean() > 0.99
    assert (on_gpu.images.cpu() - on_cpu.images).abs().mean() < 0.01


def test_a_probe_view_shows_no_class_that_its_mask_does_not_hold(labelled):
    masks = [4 * (blocks(60, 60, seed=i) % 2) for i in range(6)]
    (batch,) = ProbeViews(labelled(*masks), ProbeConfig(scale=(0.75, 1.0)), size=48, seed=7).batches(
        0, [np.arange(6)]
    )
    assert batch.labels.unique().tolist() == [0, 4, 255]


def test_blur_reaches_two_pixels(labelled):
    mask = np.zeros((20, 20), np.uint8)
    mask[9, 12] = 4
    config = replace(STILL, blur_probability=1.0)
    (batch,) = ProbeViews(labelled(mask), config, size=20, seed=7).batches(0, [np.array([0])])
    rows, columns = (grey_of(batch.images)[0] > 0.01).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 11, 10, 14)


def test_a_view_is_turned_before_it_is_mirrored():
    draw = ProbeDraws(1.0, 90.0, 0.0, 0.0, True, False)
    np.testing.assert_allclose(source_of_target(draw, 100) @ [10, 20, 1], [20, 10], atol=1e-4)
