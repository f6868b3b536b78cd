import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.images import DecodeError
from pipelines import dali, schedule
from pipelines.draws import ViewsConfig
from pipelines.files import path_bytes
from pipelines.schedule import PATH, ScheduledPipeline
from pipelines.training_views import TrainingViews

CONFIG = ViewsConfig(size=16, color_probability=0, blur_probability=0)
REAL = os.environ.get("HCL_DATA")


def with_image(images, index, path):
    samples = list(images.samples)
    samples[index] = replace(samples[index], image=path)
    return replace(images, samples=samples)


@pytest.fixture
def builds(monkeypatch):
    """How often a pipeline was built."""
    built = []
    build = schedule.ScheduledPipeline._build
    monkeypatch.setattr(schedule.ScheduledPipeline, "_build", lambda *args: built.append(1) or build(*args))
    return built


def test_one_build_serves_all_epochs(images, builds):
    views = TrainingViews(images, CONFIG, seed=7)
    for epoch in range(3):
        batches = list(views.batches(epoch, [np.arange(4), np.array([4 + epoch % 2])]))
        assert [len(batch.views[0]) for batch in batches] == [4, 1]
        assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3], [4 + epoch % 2]]
    assert len(builds) == 1


def test_larger_batches_than_before_are_served(images):
    views = TrainingViews(images, CONFIG, seed=7)
    for size in (2, 5, 3):
        (batch,) = views.batches(0, [np.arange(size)])
        assert batch.views[0].shape == (size, 3, 16, 16)


def test_an_epoch_left_early_does_not_leak_into_the_next(images):
    views = TrainingViews(images, CONFIG, seed=7)
    batches = [np.array([i]) for i in range(6)]
    expected = [batch.views[0] for batch in views.batches(1, batches)]
    for _ in views.batches(0, batches):
        break
    assert all(map(torch.equal, expected, (batch.views[0] for batch in views.batches(1, batches))))


def test_two_schedules_may_run_side_by_side(images):
    views = TrainingViews(images, CONFIG, seed=7)
    batches = [np.array([i]) for i in range(6)]
    alone = [[batch.views[0] for batch in views.batches(epoch, batches)] for epoch in (0, 1)]
    together = zip(views.batches(0, batches), views.batches(1, batches), strict=True)
    for step, pair in enumerate(together):
        for epoch in (0, 1):
            assert torch.equal(pair[epoch].views[0], alone[epoch][step])


def test_no_batch_is_no_work_and_an_empty_batch_an_error(images):
    views = TrainingViews(images, CONFIG, seed=7)
    assert list(views.batches(0, [])) == []
    with pytest.raises(ValueError, match="at least one image"):
        next(views.batches(0, [np.array([0]), np.array([], int)]))


@pytest.mark.parametrize("content", [None, b"", b"not an image at all", b"cut"])
def test_what_cannot_be_decoded_is_named_and_the_rest_goes_on(images, tmp_path, content):
    path = tmp_path / "bad.png"
    if content == b"cut":
        whole = images.samples[0].image.read_bytes()
        content = whole[: len(whole) // 2]
    if content is not None:
        path.write_bytes(content)
    views = TrainingViews(with_image(images, 3, path), CONFIG, seed=7)
    batches = views.batches(0, [np.array([i, i + 1]) for i in (0, 2, 4)])
    assert next(batches).views[0].shape == (2, 3, 16, 16)
    with pytest.raises(DecodeError, match=r"these images:\n.*bad\.png [^\n]*\(3\.png\)$"):
        next(batches)
    (good,) = views.batches(0, [np.array([0, 1])])
    assert good.views[0].isfinite().all()


def first_batch(images, *stages, pictures=None):
    """One image through DALI's graph of decoding, if there are no pictures, and more stages."""

    def graph(picture, *inputs):
        picture = dali.fn.decoders.image(dali.fn.io.file.read(picture)) if pictures is None else picture
        for stage in stages:
            picture = stage(picture)
        return (picture,)

    pipeline = ScheduledPipeline(
        graph, [PATH], images, device=torch.device("cpu"), threads=1, pictures=pictures
    )
    return next(pipeline.run([np.array([0])], lambda indices: ([path_bytes(images.samples[0].image)],)))


def beyond_the_border(picture):
    return dali.fn.slice(picture, [0, 0], [1000, 1000], axes=[0, 1])


def test_where_no_image_is_at_fault_the_error_says_what_dali_said(images):
    said = r"one of these images:\n.*0\.png \(0\.png\)\nDALI reports: Slice can't be"
    with pytest.raises(DecodeError, match=said):
        first_batch(images, beyond_the_border)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_a_gpu_that_fails_after_decoding_is_not_blamed_on_an_image(images, monkeypatch, error):
    def fails(*_):
        raise error("of the GPU")

    monkeypatch.setattr(schedule, "_to_torch", fails)
    with pytest.raises(error, match="of the GPU"):
        first_batch(images)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory"),
        DecodeError("DALI could not process these images:\nanother.png cannot be decoded (another.png)"),
    ],
    ids=["torch", "DALI", "pictures"],
)
def test_errors_within_dali_that_are_not_of_these_images_stay_as_they_are(images, error):
    def fails(indices):
        raise error

    with pytest.raises(type(error)) as raised:
        first_batch(images, pictures=fails)
    assert str(error) in str(raised.value)
    assert "0.png" not in str(raised.value)


@pytest.mark.skipif(not REAL, reason="HCL_DATA does not name a folder of real data")
def test_real_photographs_become_views():
    dataset = open_dataset(DataConfig("voc", str(Path(REAL) / "voc2012-subset"), "trainaug"))
    views = TrainingViews(dataset, ViewsConfig(), seed=7)
    batch = next(views.batches(0, [np.arange(4)]))
    means = torch.stack(batch.views).mean(dim=(2, 3, 4))
    assert batch.views[0].shape == (4, 3, 224, 224)
    assert means.abs().max() < 3
