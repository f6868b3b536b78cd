"""k-means: Lloyd iterations over the rows of one or several processes."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import choose
from kernels.kmeans import bounds
from kernels.kmeans.operations import check_rows, check_weights, lloyd_step
from kernels.kmeans.reference import LloydStep
from kernels.kmeans.seeding import INITIALISATIONS, initial_centroids
from kernels.precision import compute_dtype

Reduce = Callable[[Tensor], Tensor]
Step = Callable[[Tensor], LloydStep]

SPLIT = 1 / 1024


class NotFiniteError(ValueError):
    """``rows`` rows of all shards hold NaN or infinity; if 0, the first centroids or squared distances do."""

    def __init__(self, rows: int, of: int) -> None:
        super().__init__(
            f"{rows} of the {of} rows are not finite"
            if rows
            else f"the {of} rows are finite, but the first centroids or the squared distances are not"
        )
        self.rows = rows


class KMeans(NamedTuple):
    """Centroids, this shard's assignment to them, the inertia over all shards, and the updates done."""

    centroids: Tensor
    assignment: Tensor
    inertia: float
    iterations: int


class _Totals(NamedTuple):
    """A Lloyd step over all shards; the values that the host needs are fetched in one transfer."""

    sums: Tensor
    counts: list[int]
    inertia: float
    changed: int


@torch.no_grad()
def kmeans(
    x: Tensor,
    clusters: int,
    *,
    iterations: int = 20,
    seed: int = 0,
    init: str | Tensor = "random",
    spherical: bool = False,
    restarts: int = 1,
    weights: Tensor | None = None,
    reduce: Reduce | None = None,
    impl: str = "auto",
) -> KMeans:
    """Cluster rows by Lloyd's algorithm (HCL, sections 4 and 7).

    An empty cluster takes over half of the largest one: both get its centroid, moved apart by a small
    relative step. The iterations end early once no row changes its cluster. The host waits for the device
    once per iteration.

    On a CPU, if a step has N K >= 2^20 scores, rows whose nearest centroid cannot have changed are skipped
    (`bounds`); the assignments are those of the plain step.

    Args:
        x: (N, D) floating point, this shard's rows.
        clusters: the number of clusters K.
        iterations: maximum number of centroid updates.
        seed: seed of the first centroids; the draw does not depend on the device.
        init: "random" (K distinct rows), "k-means++", or the first centroids themselves: (K, D), or
            (restarts, K, D) for several runs.
        spherical: normalise rows and centroids to unit length, which clusters by cosine.
        restarts: number of draws to run; the run of least inertia is returned. With an `init` tensor, its
            shape decides.
        weights: (N,) int64, at least 0, how often each row counts: the result is that of rows repeated this
            often, up to the rounding of sums, at the cost of rows without repetition. None: once.
        reduce: sums a tensor over all shards, for instance by an all-reduce; None: x holds all rows. Shards
            give the result of one process up to float64 rounding, and all need the same `init` tensor.
        impl: "auto", "torch" or "triton".

    Returns:
        centroids (K, D), float32 at least; assignment (N,) int64, the nearest of these centroids; inertia,
        the summed squared distance over all shards; iterations, the updates done.

    Raises:
        ValueError: more clusters than rows, a setting out of range, or `init` does not fit the rest.
        NotFiniteError: rows or centroids are not finite; a ValueError that all shards raise.
    """
    _check(x, clusters, iterations, init, restarts, weights, reduce)
    x = x.to(compute_dtype(x))
    if spherical:
        x = F.normalize(x, dim=1)

    def run(drawn: Tensor) -> KMeans:
        start = F.normalize(drawn, dim=1) if spherical else drawn
        return _iterate(
            _stepper(x, clusters, weights, impl), x, start.to(x.dtype), iterations, spherical, reduce
        )

    starts = _starts(x, clusters, init, restarts, seed, weights)
    return min(map(run, starts), key=lambda result: result.inertia)


def _starts(
    x: Tensor, clusters: int, init: str | Tensor, restarts: int, seed: int, weights: Tensor | None
) -> Iterator[Tensor]:
    """Yield the first centroids (K, D) of every run."""
    if isinstance(init, Tensor):
        yield from init.view(-1, *init.shape[-2:])
        return
    generator = torch.Generator().manual_seed(seed)
    for _ in range(restarts):
        yield initial_centroids(x, clusters, init, generator, weights=weights)


def _stepper(x: Tensor, clusters: int, weights: Tensor | None, impl: str) -> Step:
    """Return the Lloyd step: one that bounds distances where that pays off, else the plain one."""
    on_torch = choose(impl, x, available=x.dtype == torch.float32) == "torch"
    if on_torch and x.device.type == "cpu" and len(x) * clusters >= bounds.LEAST_SCORES:
        return bounds.BoundedSteps(x, weights)
    return partial(lloyd_step, x, weights=weights, impl=impl)


def _iterate(
    step_from: Step, x: Tensor, centroids: Tensor, iterations: int, spherical: bool, reduce: Reduce | None
) -> KMeans:
    """Alternate assignment and update; the last assignment belongs to the centroids returned."""
    previous = torch.full((len(x),), -1, device=centroids.device)
    for updates in range(iterations + 1):
        step = step_from(centroids)
        total = _over_shards(step, (step.assignment != previous).sum(), reduce)
        if not math.isfinite(total.inertia):
            raise _not_finite(x, reduce)
        if total.changed == 0 or updates == iterations:
            break
        previous = step.assignment
        centroids = _next_centroids(centroids, total, spherical)
    return KMeans(centroids, step.assignment, total.inertia, updates)


def _over_shards(step: LloydStep, changed: Tensor, reduce: Reduce | None) -> _Totals:
    """Sum everything in one float64 message: one collective and one transfer to the host per iteration."""
    clusters, width = step.sums.shape
    scalars = torch.stack([step.inertia, changed.double()])
    message = torch.cat([step.sums.flatten(), step.counts.double(), scalars])
    message = message if reduce is None else reduce(message)
    *counts, inertia, moved = message[clusters * width :].tolist()
    sums = message[: clusters * width].view(clusters, width)
    return _Totals(sums, [int(count) for count in counts], inertia, int(moved))


def _not_finite(x: Tensor, reduce: Reduce | None) -> NotFiniteError:
    """Return the error for every shard; rows are checked only now, so that the steps need not do it."""
    bad = (~x.isfinite().all(dim=1)).sum()
    counts = torch.stack([bad, torch.full_like(bad, len(x))]).double()
    rows, of = (counts if reduce is None else reduce(counts)).tolist()
    return NotFiniteError(int(rows), int(of))


def _next_centroids(centroids: Tensor, total: _Totals, spherical: bool) -> Tensor:
    counts = torch.tensor(total.counts, device=centroids.device)[:, None]
    means = torch.where(counts > 0, total.sums / counts.clamp(min=1), centroids.double())
    means = _split_largest(means, total.counts)
    return (F.normalize(means, dim=1) if spherical else means).to(centroids.dtype)


def _split_largest(centroids: Tensor, counts: list[int]) -> Tensor:
    """Give every empty cluster half of the cluster that is the largest at that point.

    The step's sign alternates over channels: normalisation would undo a step along the centroid itself.
    """
    sizes = list(counts)
    step = torch.full_like(centroids[0], SPLIT)
    step[1::2] *= -1
    for empty in (cluster for cluster, count in enumerate(counts) if count == 0):
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        centroids[empty] = centroids[largest] * (1 + step)
        centroids[largest] *= 1 - step
        sizes[empty] = sizes[largest] // 2
        sizes[largest] -= sizes[empty]
    return centroids


def _check(
    x: Tensor,
    clusters: int,
    iterations: int,
    init: str | Tensor,
    restarts: int,
    weights: Tensor | None,
    reduce: Reduce | None,
) -> None:
    for name, value in (("clusters", clusters), ("iterations", iterations), ("restarts", restarts)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if isinstance(init, Tensor):
        _check_given(x, clusters, init, restarts)
    elif init not in INITIALISATIONS:
        raise ValueError(f"init must be a tensor or one of {INITIALISATIONS}, got {init!r}")
    elif reduce is not None:
        raise ValueError(f"with reduce, every shard needs the same init tensor, got init={init!r}")
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"expected floating-point rows (N, D), got {x.dtype} of shape {tuple(x.shape)}")
    check_weights(x, weights)
    if weights is not None and (weights < 0).any():
        raise ValueError(f"weights must not be negative, got {int(weights.min())}")
    count = len(x) if weights is None else int(weights.sum())
    rows = torch.tensor([count], dtype=torch.float64, device=x.device)
    total = count if reduce is None else int(reduce(rows).item())
    if clusters > total:
        raise ValueError(f"cannot form {clusters} clusters of {total} rows")


def _check_given(x: Tensor, clusters: int, init: Tensor, restarts: int) -> None:
    if init.ndim == 3 and not len(init):
        raise ValueError("init holds the first centroids of no run")
    one = init[0] if init.ndim == 3 else init
    check_rows(x, one)
    if len(one) != clusters:
        raise ValueError(f"init holds {len(one)} centroids for {clusters} clusters")
    if restarts > 1:
        raise ValueError(f"restarts={restarts} needs init drawn anew, got a tensor")
