"""Lloyd step: eager reference, compiled reference, Triton; by faiss only the search, a part of the step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.harness import Run, compiled
from kernels.kmeans import lloyd_step

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
CASES = (
    [
        (rows, clusters, width, dtype)
        for rows, clusters, width in (
            (2**20, 500, 256),
            (2**20, 1024, 256),
            (2**20, 4096, 256),
            (2**18, 32_768, 256),
            (2**20, 500, 100),
            (2**18, 4096, 768),
        )
        for dtype in (torch.float32, torch.bfloat16)
    ]
    if GPU
    else [(37, 5, 8, torch.float32)]
)


def function_of(impl: str) -> Callable[[Tensor, Tensor], Any]:
    if impl == "faiss":
        return faiss_search()

    def step(x: Tensor, centroids: Tensor) -> Any:
        return lloyd_step(x, centroids, impl="triton" if impl == "triton" else "torch")

    return compiled(step, fullgraph=False) if impl == "compiled" else step


def faiss_search() -> Callable[[Tensor, Tensor], Any]:
    """Return faiss's search of the nearest centroid, on the GPU if its GPU build is installed."""
    faiss = pytest.importorskip("faiss")
    if not GPU:
        return lambda x, centroids: faiss.knn(x.numpy(), centroids.numpy(), 1)
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("needs the GPU build of faiss")
    pytest.importorskip("faiss.contrib.torch_utils")
    resources = faiss.StandardGpuResources()
    return lambda x, centroids: faiss.knn_gpu(resources, x, centroids, 1)


@pytest.mark.parametrize("impl", ["eager", "compiled", "triton", "faiss"])
@pytest.mark.parametrize(("rows", "clusters", "width", "dtype"), CASES)
def test_lloyd_step(
    record: Callable[..., None], rows: int, clusters: int, width: int, dtype: torch.dtype, impl: str
) -> None:
    if impl == "faiss" and dtype != torch.float32:
        pytest.skip("faiss takes float32")

    def setup() -> Run:
        x = torch.randn(rows, width, device=DEVICE).to(dtype)
        centroids = x[:clusters].clone()
        function = function_of(impl)
        return lambda: function(x, centroids)

    bytes_moved = (rows + clusters) * width * dtype.itemsize + rows * 8 + clusters * (width + 1) * 8
    shape = f"N={rows} K={clusters} D={width} {str(dtype).removeprefix('torch.')}"
    record("lloyd_step", impl, shape, setup, bytes_moved, 2 * rows * clusters * width)
