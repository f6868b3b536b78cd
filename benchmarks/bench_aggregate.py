"""Multi-level token aggregation: eager reference, compiled reference, Triton."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.harness import Run, compiled
from kernels.aggregate import aggregate_tokens, fuse_tokens

GPU = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
IMPLEMENTATIONS = ("eager", "compiled", "triton")


class Case(NamedTuple):
    """Images, pixels per side, patch sizes, and the widths of tokens and of the fused tokens."""

    batch: int
    pixels: int
    patches: tuple[int, ...]
    width: int = 384
    outputs: int = 768

    @property
    def grids(self) -> list[tuple[int, int]]:
        return [(self.pixels // patch,) * 2 for patch in self.patches]

    @property
    def tokens(self) -> int:
        """Tokens of all levels, [CLS] included."""
        return self.batch * sum(1 + h * w for h, w in self.grids)

    @property
    def cells(self) -> int:
        """Cells of the finest grids."""
        return self.batch * self.grids[0][0] ** 2


S16, S8 = (16, 32, 56), (8, 16, 32, 56)
SHAPES = [
    Case(batch, pixels, patches) for batch in (64, 1024) for pixels in (224, 448) for patches in (S16, S8)
]
CASES = SHAPES if GPU else [Case(1, 4, (1, 2), 5, 7)]


def function_of(operation: Callable[..., Tensor], impl: str) -> Callable[..., Tensor]:
    if impl != "compiled":
        return lambda *args: operation(*args, impl="triton" if impl == "triton" else "torch")
    return compiled(lambda *args: operation(*args, impl="torch"))


def describe(case: Case) -> str:
    return f"B={case.batch} {case.pixels}px p={case.patches[0]} D={case.width}"


def sequences_of(case: Case) -> list[Tensor]:
    return [torch.randn(case.batch, 1 + h * w, case.width, device=DEVICE).to(DTYPE) for h, w in case.grids]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", CASES, ids=describe)
def test_aggregate_tokens(record: Callable[..., None], case: Case, impl: str) -> None:
    def setup() -> Run:
        sequences, norm = sequences_of(case), torch.randn(2, case.width, device=DEVICE).to(DTYPE)
        function = function_of(aggregate_tokens, impl)
        return lambda: function(sequences, case.grids, norm[0], norm[1])

    values = case.tokens + case.cells * (len(case.grids) + 1)
    record("aggregate_tokens", impl, describe(case), setup, values * case.width * DTYPE.itemsize)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", CASES, ids=describe)
def test_fuse_tokens_forward_and_backward(record: Callable[..., None], case: Case, impl: str) -> None:
    def setup() -> Run:
        sequences, function = sequences_of(case), function_of(fuse_tokens, impl)
        shapes = [(case.outputs, (len(case.grids) + 1) * case.width), *[(case.outputs,)] * 3]
        parameters = [torch.randn(shape, device=DEVICE).to(DTYPE).requires_grad_() for shape in shapes]
        gradient = torch.randn(case.batch, case.grids[0][0] ** 2, case.outputs, device=DEVICE).to(DTYPE)
        return lambda: torch.autograd.grad(function(sequences, case.grids, *parameters), parameters, gradient)

    # Tokens are read by both passes, the output is written, its gradient read.
    values = 2 * case.tokens * case.width + 2 * case.cells * case.outputs
    flops = 2 * 2 * (case.tokens + case.batch) * case.width * case.outputs
    record("fuse_tokens", impl, describe(case), setup, values * DTYPE.itemsize, flops)
