"""Foreground maps: eager reference, compiled reference, Triton, and labelling image by image on the host."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.harness import Run, compiled
from benchmarks.published import foreground_maps
from kernels.foreground import foreground_mask

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
HEADS, KEEP_MASS = 6, 0.7
CASES = [(batch, side) for batch in (64, 1024) for side in (14, 28, 56)] if GPU else [(2, 5)]


def function_of(impl: str) -> Callable[[Tensor], Tensor]:
    if impl == "labelling":
        return lambda attention: foreground_maps(attention, KEEP_MASS)
    if impl != "compiled":
        chosen = "triton" if impl == "triton" else "torch"
        return lambda attention: foreground_mask(attention, KEEP_MASS, impl=chosen)
    return compiled(lambda attention: foreground_mask(attention, KEEP_MASS, impl="torch"))


@pytest.mark.parametrize("impl", ["labelling", "eager", "compiled", "triton"])
@pytest.mark.parametrize(("batch", "side"), CASES)
def test_foreground_mask(record: Callable[..., None], batch: int, side: int, impl: str) -> None:
    def setup() -> Run:
        attention = torch.rand(batch, HEADS, side, side, device=DEVICE) ** 8
        function = function_of(impl)
        return lambda: function(attention)

    bytes_moved = batch * side**2 * (HEADS * 4 + 1)
    record("foreground_mask", impl, f"B={batch} {side}x{side}", setup, bytes_moved)
