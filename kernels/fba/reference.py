"""Foreground-background-aware contrastive loss in plain torch."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.precision import compute_dtype, without_autocast


class FBAOutput(NamedTuple):
    """The two losses, the number of tokens that each is the mean of, and every token's centroid."""

    loss_fg: Tensor
    loss_bg: Tensor
    count_fg: Tensor
    count_bg: Tensor
    assignment: Tensor


def fba_contrastive(
    q: Tensor,
    k: Tensor,
    foreground: Tensor,
    centroids_fg: Tensor,
    centroids_bg: Tensor,
    temperature: float,
) -> FBAOutput:
    """Cross-entropy of q . c_hat / tau against argmin_j ||k - c_j||^2, both within the token's own bank."""
    dtype = compute_dtype(q, k, centroids_fg, centroids_bg)
    q, k = q.to(dtype), k.to(dtype)
    centroids = torch.cat([centroids_fg, centroids_bg]).detach().to(dtype)
    in_fg = torch.arange(len(centroids), device=q.device) < len(centroids_fg)
    foreign = foreground[:, None] != in_fg
    with without_autocast(q):
        distance = centroids.square().sum(dim=1) - 2 * k @ centroids.T
        nearest = distance.masked_fill(foreign, torch.inf).argmin(dim=1)
        logits = q @ F.normalize(centroids, dim=1).T / temperature
        loss = F.cross_entropy(logits.masked_fill(foreign, -torch.inf), nearest, reduction="none")
    loss_fg, count_fg = _masked_mean(loss, foreground)
    loss_bg, count_bg = _masked_mean(loss, ~foreground)
    assignment = torch.where(foreground, nearest, nearest - len(centroids_fg))
    return FBAOutput(loss_fg, loss_bg, count_fg, count_bg, assignment)


def _masked_mean(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    count = mask.sum()
    return torch.where(mask, values, 0).sum() / count.clamp(min=1), count
