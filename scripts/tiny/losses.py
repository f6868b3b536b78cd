"""Targets computed from the teacher's tokens, and the student's loss."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def balanced(cosines: Tensor, temperature: float = 0.05, rounds: int = 3) -> Tensor:
    """Compute targets (M, K), with rows of sum 1, that use all prototypes equally (Sinkhorn-Knopp)."""
    weights = ((cosines.float() - cosines.max()) / temperature).exp()
    for _ in range(rounds):
        weights = weights / (weights.sum(0) + 1e-9)
        weights = weights / (weights.sum(1, keepdim=True) + 1e-9)
    return weights


@torch.no_grad()
def rarity(
    patches: Tensor, generator: torch.Generator, *, alike: float = 0.55, share: float = 0.02
) -> Tensor:
    """Compute attention (B, N), of sum 1 per image, that is higher for patches with few similar ones.

    Args:
        patches: (B, N, D) patch tokens of the teacher.
        generator: draws up to 1024 patches of the batch, with which every patch is compared.
        alike: standardised patches with a cosine above this are similar.
        share: share of similar patches at which the attention is e times less than that of a unique patch.
    """
    flat = patches.float().flatten(0, 1)
    flat = F.normalize((flat - flat.mean(0)) / flat.std(0), dim=-1)
    others = flat[torch.randperm(len(flat), generator=generator)[:1024]]
    common = (flat @ others.T > alike).float().mean(1).view(patches.shape[:2])
    return (-common / share).softmax(dim=1)


def cross_entropy(targets: Tensor, cosines: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute the mean cross-entropy over rows (M, K)."""
    return -(targets * F.log_softmax(cosines.float() / temperature, dim=-1)).sum(-1).mean()
