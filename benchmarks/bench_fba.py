"""Contrastive loss, forward and backward: eager reference, compiled reference, Triton."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Run, compiled
from kernels.fba import FBAOutput, fba_contrastive

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
TAU, WIDTH = 0.07, 256 if GPU else 8
# Batches of 64 and 1024 images of 14 x 14 tokens, and of 1024 of 28 x 28.
TOKENS = (12_544, 200_704, 802_816) if GPU else (21,)
CASES = [
    (tokens, clusters, dtype)
    for tokens in TOKENS
    for clusters in ((500, 4096, 32_768) if GPU else (5,))
    for dtype in ((torch.bfloat16, torch.float32) if GPU else (torch.float32,))
]
# The references hold several float32 buffers of tokens x centroids of both banks.
REFERENCE_ELEMENTS = 2 * 10**9


def function_of(impl: str) -> Callable[..., FBAOutput]:
    chosen = "triton" if impl == "triton" else "torch"

    def fba(q: Tensor, k: Tensor, foreground: Tensor, fg: Tensor, bg: Tensor) -> FBAOutput:
        return fba_contrastive(q, k, foreground, fg, bg, TAU, impl=chosen)

    return compiled(fba) if impl == "compiled" else fba


@pytest.mark.parametrize("impl", ["eager", "compiled", "triton"])
@pytest.mark.parametrize(("tokens", "clusters", "dtype"), CASES)
def test_fba_contrastive(
    record: Callable[..., None], tokens: int, clusters: int, dtype: torch.dtype, impl: str
) -> None:
    if impl != "triton" and 2 * tokens * clusters > REFERENCE_ELEMENTS:
        pytest.skip("the reference's tokens x centroids do not fit")

    def setup() -> Run:
        q, k = F.normalize(torch.randn(2, tokens, WIDTH, device=DEVICE), dim=2).to(dtype)
        banks = torch.randn(2, clusters, WIDTH, device=DEVICE).mul(WIDTH**-0.5).to(dtype)
        foreground = torch.rand(tokens, device=DEVICE) < 0.5
        q.requires_grad_()
        function = function_of(impl)

        def run() -> Tensor:
            out = function(q, k, foreground, *banks)
            return torch.autograd.grad(out.loss_fg + out.loss_bg, q)[0]

        return run

    # q twice, k, dL/dq; flag, assignment and log-sum-exp, the last two written and read; the centroids.
    size = dtype.itemsize
    bytes_moved = 4 * tokens * WIDTH * size + tokens * (1 + 2 * 12) + 2 * clusters * WIDTH * size
    flops = 4 * 2 * tokens * clusters * WIDTH
    shape = f"M={tokens} K={clusters} C={WIDTH} {str(dtype).removeprefix('torch.')}"
    record("fba_contrastive", impl, shape, setup, bytes_moved, flops)
