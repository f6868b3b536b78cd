"""Generated images: lossless, so that what a pipeline makes of them can be computed in another way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcl.data.samples import Dataset, Sample


def smooth_image(width: int, height: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six unlabelled images of different shapes."""
    folder = tmp_path_factory.mktemp("images")
    shapes = [(90, 70), (64, 128), (100, 100), (31, 50), (128, 64), (200, 61)]
    for i, (width, height) in enumerate(shapes):
        smooth_image(width, height, seed=i).save(folder / f"{i}.png")
    return Dataset("images", [Sample(folder / f"{i}.png", None, f"{i}.png") for i in range(len(shapes))])


@pytest.fixture(scope="session")
def jpegs(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same images with losses: colours at half the resolution."""
    folder = tmp_path_factory.mktemp("jpegs")
    samples = []
    for sample in images.samples:
        path = folder / sample.image.with_suffix(".jpg").name
        with Image.open(sample.image) as image:
            image.save(path, quality=80, subsampling="4:2:0")
        samples.append(Sample(path, None, path.name))
    return Dataset("jpegs", samples)


@pytest.fixture
def labelled(tmp_path: Path) -> Callable[..., Dataset]:
    """Images and masks from arrays of class ids; an image shows class c as grey of 40 c."""

    def write(*masks: np.ndarray) -> Dataset:
        samples = []
        for i, mask in enumerate(masks):
            image, label = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
            Image.fromarray(np.repeat(mask[..., None] * 40, 3, axis=2).astype(np.uint8)).save(image)
            Image.fromarray(mask.astype(np.uint8)).save(label)
            samples.append(Sample(image, label, f"val.txt:{i + 1}"))
        return Dataset("labelled", samples, ("a", "b", "c", "d", "e"))

    return write
