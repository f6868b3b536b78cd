"""Dense CRF: Triton against pydensecrf, in one process and in one process per processor.

Without a GPU pydensecrf runs at full size, and Triton at a toy size only.
"""

from collections.abc import Callable

import pytest
import torch

from benchmarks.crf_agreement import PAIRWISE
from benchmarks.crf_scenes import generate_scenes
from benchmarks.crf_tiles import near_tiles
from benchmarks.harness import Run
from kernels.crf import dense_crf
from kernels.crf.tiles import BLOCK, build_tiles
from kernels.processors import usable_processors

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
CLASSES, SIDE, TOY_SIDE, ITERATIONS = 21, 448, 12, 10
WORKERS = {"triton": None, "pydensecrf": 1, "pydensecrf workers": usable_processors()}


@pytest.mark.parametrize("impl", WORKERS)
@pytest.mark.parametrize("batch", [1, 16] if GPU else [8])
def test_dense_crf(record: Callable[..., None], batch: int, impl: str) -> None:
    side = TOY_SIDE if impl == "triton" and not GPU else SIDE
    scenes = list(generate_scenes(batch, CLASSES, side))
    probabilities = torch.stack([scene.probabilities for scene in scenes]).to(DEVICE)
    images = torch.stack([scene.image for scene in scenes]).to(DEVICE)

    def setup() -> Run:
        name = impl.split()[0]
        return lambda: dense_crf(probabilities, images, impl=name, workers=WORKERS[impl])

    # Counted by bounding boxes: tile pairs without a near pixel, which the kernel drops, count too.
    flops = 2 * ITERATIONS * CLASSES * BLOCK**2 * int(near_tiles(build_tiles(images, PAIRWISE), 1e-3).sum())
    bytes_moved = 2 * probabilities.nbytes + images.nbytes
    record("dense_crf", impl, f"B={batch} C={CLASSES} {side}x{side}", setup, bytes_moved, flops)
