"""What every test may use: golden vectors, Triton without a GPU, and a skip for tests that need one."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Before torch is imported, and for all that the tests start: one thread. What the tests compute is so small
# that a second one costs more, in waiting, than it spares. Where there are more, they spin for some
# microseconds, then sleep: threads that spin on hold up those they wait for, where there are fewer cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

# Before any kernel is imported: without a GPU, Triton's kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Before infomap: both are made by SWIG, and an infomap that comes first crashes once faiss is there, too.
with suppress(ModuleNotFoundError):
    import faiss  # noqa: F401

THREADS = torch.get_num_threads()
GOLDEN = Path(os.environ.get("HCL_GOLDEN", Path(__file__).parent / "golden"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "golden" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.golden)
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    """Tokens and weights of one test are not another's, nor the user's."""
    monkeypatch.setenv("HCL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """A command that sets torch's threads sets them for one test: their number decides the last bits."""
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium of this machine, as playwright drives it."""
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Vectors computed by the published program, by file name without ending."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as archive:
            return dict(archive)

    return load


@pytest.fixture(scope="session")
def golden_pattern() -> Callable[[int, int, float], torch.Tensor]:
    """The images that the golden vectors were computed on."""

    def pattern(batch: int, size: int, phase: float) -> torch.Tensor:
        b = np.arange(batch)[:, None, None, None]
        c = np.arange(3)[None, :, None, None]
        y = np.arange(size)[None, None, :, None]
        x = np.arange(size)[None, None, None, :]
        waves = np.sin(0.05 * (x + 1) * (c + 1) + 0.03 * y * (b + 1) + phase)
        ripples = np.cos(0.11 * y - 0.07 * x * (c + 1) + 0.5 * b + phase)
        return torch.from_numpy((waves + ripples).astype(np.float32))

    return pattern
