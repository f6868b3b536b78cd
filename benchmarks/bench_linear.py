"""A frozen layer with GELU: eager reference, compiled reference, Triton."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks.harness import Run, compiled
from kernels.linear import linear_gelu

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
TOKENS = 264
CASES = (
    [(2 * images * TOKENS, width, torch.bfloat16) for width in (384, 768) for images in (64, 512)]
    if GPU
    else [(37, 16, torch.float16)]
)
"""The tokens of both views of a batch, on all levels at 224 pixels and patches of 16."""


def function_of(impl: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    function = partial(linear_gelu, impl="triton" if impl == "triton" else "torch")
    return compiled(function) if impl == "compiled" else function


@pytest.mark.parametrize("impl", ["eager", "compiled", "triton"])
@pytest.mark.parametrize(("rows", "width", "dtype"), CASES)
def test_linear_gelu(
    record: Callable[..., None], rows: int, width: int, dtype: torch.dtype, impl: str
) -> None:
    outputs = 4 * width

    def setup() -> Run:
        x = torch.randn(rows, width, device=DEVICE).to(dtype)
        weight = (torch.randn(outputs, width, device=DEVICE) / width**0.5).to(dtype)
        bias = torch.randn(outputs, device=DEVICE).to(dtype)
        function = function_of(impl)
        return lambda: function(x, weight, bias)

    bytes_moved = (rows * (width + outputs) + outputs * (width + 1)) * dtype.itemsize
    shape = f"N={rows} {width}->{outputs} {str(dtype).removeprefix('torch.')}"
    record("linear_gelu", impl, shape, setup, bytes_moved, 2 * rows * width * outputs)
