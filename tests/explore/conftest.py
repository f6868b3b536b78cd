"""The page on three small scenes, asked as its own browser asks."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.scenes import draw_scene
from hcl.distributed import World
from hcl.explore.app import build_app
from hcl.explore.explorer import Explorer
from hcl.explore.hierarchy import Hierarchy
from hcl.explore.library import fill
from tests.inference.conftest import checkpoint, photographs, scenes, segmenter  # noqa: F401

PAGE = "http://127.0.0.1:8765"
LEAVES = 20
MOST_BYTES, MOST_PIXELS = 60_000, 20_000


@pytest.fixture(scope="session")
def explorer(segmenter, scenes) -> Explorer:  # noqa: F811
    dataset = open_dataset(DataConfig("scenes", str(scenes), "val"))
    library = fill(dataset, segmenter, 2, World.alone(segmenter.device))
    return Explorer(segmenter, library, Hierarchy.of(library.tokens, LEAVES, seed=0), neighbours=12)


@pytest.fixture(scope="session")
def app(explorer):
    return build_app(explorer, most_bytes=MOST_BYTES, most_pixels=MOST_PIXELS, clusters=6, most_clusters=12)


@pytest.fixture
def client(app) -> Iterator[TestClient]:
    with TestClient(app, base_url=PAGE) as client:
        yield client


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def scene() -> bytes:
    """A photograph that is not in the data set, as a file."""
    return encoded(draw_scene(96, np.random.default_rng(5))[0])
