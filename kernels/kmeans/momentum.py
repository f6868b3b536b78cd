"""Momentum centroids: one exponential-moving-average step per batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.kmeans.operations import check_rows, cluster_sums
from kernels.precision import compute_dtype

# At most this many clusters are re-seeded in one step, so that ranks exchange little and a fixed size.
RESEEDS = 16


class MomentumUpdate(NamedTuple):
    """The new centroids (K, D) and the number of steps since each last had a token, (K,) int64."""

    centroids: Tensor
    idle: Tensor


@torch.no_grad()
def momentum_centroid_update(
    centroids: Tensor,
    tokens: Tensor,
    assignment: Tensor,
    momentum: float,
    *,
    idle: Tensor | None = None,
    patience: int | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
    gather: Callable[[Tensor], Tensor] | None = None,
    impl: str = "auto",
) -> MomentumUpdate:
    """Move every centroid towards the mean of its tokens (HCL, section 11).

    c_j <- m c_j + (1 - m) mu_j, with mu_j the mean of all ranks' tokens of cluster j; without a token c_j
    stays. Clusters without a token for `patience` steps are re-seeded, at most 16 per step: the longest idle
    from the batch's worst-explained token (the farthest from the centroid that it was assigned to), the next
    from the next. All shapes are fixed, and the host never waits for the device.

    Args:
        centroids: (K, D) raw centroids, the same on every rank.
        tokens: (M, D) momentum tokens of this rank.
        assignment: (M,) int64 below K; negative: the token belongs to another bank and is ignored.
        momentum: m in [0, 1].
        idle: (K,) int64, steps without a token before this one; None: none yet.
        patience: steps without a token after which a cluster is re-seeded; None: never.
        reduce: sums a tensor over ranks; None: one process.
        gather: concatenates the ranks' tensors along dimension 0, in rank order; required if both `reduce`
            and `patience` are given.
        impl: "auto", "torch" or "triton".

    Returns:
        centroids (K, D) of the input's dtype and idle (K,) int64; both the same on every rank.

    Raises:
        ValueError: shapes that disagree, a setting out of range, or re-seeding over ranks without `gather`.
    """
    check_rows(tokens, centroids)
    _check(centroids, momentum, idle, patience, needs_gather=reduce is not None and gather is None)
    sums, counts = cluster_sums(tokens, assignment, len(centroids), impl=impl)
    message = torch.cat([sums, counts[:, None].double()], dim=1)
    message = message if reduce is None else reduce(message)
    updated = _move(centroids, message[:, :-1], message[:, -1:], momentum)
    idle = torch.zeros_like(counts) if idle is None else idle
    idle = torch.where(message[:, -1] > 0, 0, idle + 1)
    if patience is None:
        return MomentumUpdate(updated, idle)
    candidates = _worst_explained(centroids, tokens, assignment)
    candidates = candidates if gather is None else gather(candidates)
    return _reseed(updated, idle, patience, candidates)


def _move(centroids: Tensor, sums: Tensor, counts: Tensor, momentum: float) -> Tensor:
    means = sums / counts.clamp(min=1)
    moved = momentum * centroids.double() + (1 - momentum) * means
    return torch.where(counts > 0, moved.to(centroids.dtype), centroids)


def _worst_explained(centroids: Tensor, tokens: Tensor, assignment: Tensor) -> Tensor:
    """List the tokens farthest from their centroid as rows [squared distance, token], padded with 0."""
    tokens = tokens.to(compute_dtype(tokens, centroids))
    own = centroids.index_select(0, assignment.clamp(min=0))
    distance = (tokens - own).square().sum(dim=1).masked_fill(assignment < 0, 0)
    wanted = min(RESEEDS, len(centroids))
    worst = distance.topk(min(wanted, len(tokens)))
    rows = torch.cat([worst.values[:, None], tokens.index_select(0, worst.indices)], dim=1)
    return F.pad(rows, (0, 0, 0, wanted - len(rows)))


def _reseed(centroids: Tensor, idle: Tensor, patience: int, candidates: Tensor) -> MomentumUpdate:
    """Match the longest idle clusters with the worst-explained tokens; stable sorts agree on every rank."""
    wanted = min(RESEEDS, len(centroids))
    worst = candidates.index_select(0, candidates[:, 0].argsort(descending=True, stable=True)[:wanted])
    longest = idle.argsort(descending=True, stable=True)[:wanted]
    waited = idle.index_select(0, longest)
    due = (waited >= patience) & (worst[:, 0] > 0)
    seeds = torch.where(due[:, None], worst[:, 1:].to(centroids.dtype), centroids.index_select(0, longest))
    return MomentumUpdate(
        centroids.index_copy(0, longest, seeds), idle.index_copy(0, longest, torch.where(due, 0, waited))
    )


def _check(
    centroids: Tensor, momentum: float, idle: Tensor | None, patience: int | None, needs_gather: bool
) -> None:
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in [0, 1], got {momentum}")
    if idle is not None and (idle.shape != centroids.shape[:1] or idle.dtype != torch.int64):
        raise ValueError(
            f"idle: expected int64 of shape {tuple(centroids.shape[:1])}, "
            f"got {idle.dtype} of shape {tuple(idle.shape)}"
        )
    if patience is None:
        return
    if patience < 1:
        raise ValueError(f"patience must be at least 1 step, got {patience}")
    if needs_gather:
        raise ValueError(f"re-seeding (patience={patience}) over ranks needs gather beside reduce")
