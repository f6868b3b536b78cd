"""Small data sets of generated images, in the layouts of the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    def write(path: Path, width: int = 40, height: int = 30) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return path

    return write


@pytest.fixture
def write_mask() -> Callable[[Path, np.ndarray], Path]:
    def write(path: Path, values: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = Image.fromarray(values.astype(np.uint8))
        mask.putpalette([255 - i // 3 for i in range(768)])
        mask.save(path)
        return path

    return write


@pytest.fixture
def write_split() -> Callable[..., Path]:
    def write(path: Path, *lines: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
