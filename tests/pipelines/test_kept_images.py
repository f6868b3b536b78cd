"""Every image is decoded once, and then its file is not needed any more."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hcl.data.images import DecodeError
from pipelines import kept_images
from pipelines.draws import ViewsConfig
from pipelines.kept_images import KeptImages, decoded_bytes
from pipelines.training_views import TrainingViews

CPU = torch.device("cpu")


def test_kept_images_are_the_files_pixels(images):
    kept = KeptImages(images, device=CPU, threads=1)
    for index, pixels in zip((5, 0, 3), kept(np.array([5, 0, 3])), strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(images.samples[index].image)))


def test_files_are_read_once_and_by_all_views_together(images, tmp_path, monkeypatch):
    samples = [replace(s, image=shutil.copy(s.image, tmp_path / s.image.name)) for s in images.samples]
    decoded = []
    whole = KeptImages._decoded
    monkeypatch.setattr(KeptImages, "_decoded", lambda kept: decoded.append(1) or whole(kept))
    views = TrainingViews(replace(images, samples=samples), ViewsConfig(size=16), seed=7, keep_images=True)
    first = next(views.batches(0, [np.arange(6)])).views
    for sample in samples:
        sample.image.unlink()
    (again,) = views.batches(0, [np.arange(6)])
    (second,) = views.batches(0, [np.arange(6)], views=(2,))
    assert torch.equal(torch.stack(first), torch.stack(again.views))
    assert torch.equal(first[1], second.views[0])
    assert decoded == [1]


def test_what_cannot_be_decoded_is_named(images, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(images.samples[0].image.read_bytes()[:200])
    samples = [*images.samples[:4], replace(images.samples[4], image=bad)]
    kept = KeptImages(replace(images, samples=samples), device=CPU, threads=1)
    with pytest.raises(DecodeError, match=r"bad\.png"):
        kept(np.array([0]))


def test_the_room_that_images_need_is_that_of_their_pixels(images, monkeypatch):
    exact = sum(pixels.nbytes for pixels in KeptImages(images, device=CPU, threads=1)(np.arange(6)))
    assert decoded_bytes(images) == exact
    monkeypatch.setattr(kept_images, "_LOOKED_AT", 2)
    ends = [images.samples[0].image, images.samples[5].image]
    assert decoded_bytes(images) == 3 * sum(np.asarray(Image.open(path)).nbytes for path in ends)
