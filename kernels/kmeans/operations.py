"""The building blocks of k-means: argument checks and choice of implementation."""

import torch
from torch import Tensor

from kernels.dispatch import choose
from kernels.kmeans import reference
from kernels.kmeans.reference import LloydStep
from kernels.precision import compute_dtype


@torch.no_grad()
def nearest_centroid(x: Tensor, centroids: Tensor, *, impl: str = "auto") -> Tensor:
    """Find every row's nearest centroid by Euclidean distance (HCL, section 5).

    The N x K distances never exist as a whole. Arithmetic is at least in float32; ties go to the first.

    Args:
        x: (N, D) floating point.
        centroids: (K, D), K >= 1, raw (not normalised).
        impl: "auto", "torch" or "triton".

    Returns:
        (N,) int64.

    Raises:
        ValueError: shapes that disagree, integers, or no centroid.
    """
    check_rows(x, centroids)
    if choose(impl, x, centroids, available=_in_float32(x, centroids)) == "triton":
        from kernels.kmeans import triton

        return triton.nearest_centroid(x, centroids)
    return reference.nearest_centroid(x, centroids)


@torch.no_grad()
def cluster_sums(
    x: Tensor, assignment: Tensor, clusters: int, *, weights: Tensor | None = None, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Sum and count the rows of every cluster.

    The same input gives the same bits. The results of shards may be added, and equal those of a single shard
    up to float64 rounding.

    Args:
        x: (N, D) floating point.
        assignment: (N,) int64 below `clusters`; negative: the row belongs to no cluster.
        clusters: K >= 1.
        weights: (N,) int64, how often each row counts; None: once.
        impl: "auto", "torch" or "triton".

    Returns:
        sums (K, D) float64 and counts (K,) int64.

    Raises:
        ValueError: shapes or dtypes that disagree with the above.
        RuntimeError: an assignment is `clusters` or more; on a GPU the device checks this, and a later call
            may raise the error.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"expected floating-point rows (N, D), got {x.dtype} of shape {tuple(x.shape)}")
    if assignment.shape != x.shape[:1] or assignment.dtype != torch.int64:
        raise ValueError(
            f"assignment: expected int64 of shape {tuple(x.shape[:1])}, "
            f"got {assignment.dtype} of shape {tuple(assignment.shape)}"
        )
    check_weights(x, weights)
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}")
    if choose(impl, x, assignment, weights, available=_in_float32(x)) == "triton":
        from kernels.kmeans import triton

        return triton.cluster_sums(x, assignment, clusters, weights)
    return reference.cluster_sums(x, assignment, clusters, weights)


@torch.no_grad()
def lloyd_step(
    x: Tensor, centroids: Tensor, *, weights: Tensor | None = None, impl: str = "auto"
) -> LloydStep:
    """Assign every row to its nearest centroid and compute the sums that the next centroids need.

    The same input gives the same bits; `sums`, `counts` and `inertia` of shards may be added.

    Args:
        x: (N, D) floating point.
        centroids: (K, D), K >= 1.
        weights: (N,) int64, how often each row counts in all but the assignment; None: once.
        impl: "auto", "torch" or "triton".

    Returns:
        assignment (N,) int64; sums (K, D) float64; counts (K,) int64; inertia 0-d float64, the summed squared
        distance of the rows to their centroids.

    Raises:
        ValueError: shapes that disagree, integers, or no centroid.
    """
    check_rows(x, centroids)
    check_weights(x, weights)
    if choose(impl, x, centroids, weights, available=_in_float32(x, centroids)) == "triton":
        from kernels.kmeans import triton

        return LloydStep(*triton.lloyd_step(x, centroids, weights))
    return reference.lloyd_step(x, centroids, weights)


def _in_float32(*tensors: Tensor) -> bool:
    """Return whether the arithmetic is in float32, which is what the Triton forms use."""
    return compute_dtype(*tensors) == torch.float32


def check_rows(x: Tensor, centroids: Tensor) -> None:
    """Raise ValueError unless x is floating-point (N, D) and centroids (K >= 1, D)."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"expected floating-point rows (N, D), got {x.dtype} of shape {tuple(x.shape)}")
    if centroids.ndim != 2 or centroids.shape[1] != x.shape[1] or centroids.shape[0] < 1:
        raise ValueError(f"centroids: expected shape (K >= 1, {x.shape[1]}), got {tuple(centroids.shape)}")
    if not centroids.is_floating_point():
        raise ValueError(f"centroids: expected floating point, got {centroids.dtype}")


def check_weights(x: Tensor, weights: Tensor | None) -> None:
    """Raise ValueError unless weights are int64, one for every row of x."""
    if weights is not None and (weights.shape != x.shape[:1] or weights.dtype != torch.int64):
        raise ValueError(
            f"weights: expected int64 of shape {tuple(x.shape[:1])}, "
            f"got {weights.dtype} of shape {tuple(weights.shape)}"
        )
