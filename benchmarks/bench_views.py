"""Photometric views of doubled crops: eager reference, compiled reference, Triton."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.harness import Run, compiled
from kernels.views import photometric_views

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
VIEWS = 2


def function_of(impl: str) -> Callable[[Tensor, Tensor], Tensor]:
    if impl == "triton":
        return lambda doubled, draws: photometric_views(doubled, draws, MEAN, STD, impl="triton")
    plain = lambda doubled, draws: photometric_views(doubled, draws, MEAN, STD, impl="torch")  # noqa: E731
    return compiled(plain) if impl == "compiled" else plain


@pytest.mark.parametrize("impl", ["eager", "compiled", "triton"])
@pytest.mark.parametrize(("batch", "side"), [(16, 448), (64, 448)] if GPU else [(1, 8)])
def test_photometric_views(record: Callable[..., None], batch: int, side: int, impl: str) -> None:
    def setup() -> Run:
        doubled = 255 * torch.rand(batch, side, side, 3, device=DEVICE)
        draws = torch.rand(VIEWS, batch, 6, device=DEVICE) + 0.5
        draws[..., 5] = 0
        function = function_of(impl)
        return lambda: function(doubled, draws)

    # Crops once, views once; the two products with the matrices of blur and halving.
    bytes_moved = 4 * batch * 3 * (side**2 + VIEWS * (side // 2) ** 2)
    flops = 2 * VIEWS * batch * 3 * (side // 2) * side * (side + side // 2)
    record("photometric_views", impl, f"B={batch} {side}x{side}", setup, bytes_moved, flops)
