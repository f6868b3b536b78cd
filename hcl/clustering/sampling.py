"""Which momentum tokens of an image enter the token banks (HCL, section 4)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.randomness import generator


class Targets(NamedTuple):
    """Momentum tokens (B, N, C), L2-normalised, and their foreground flags (B, N), bool."""

    tokens: Tensor
    foreground: Tensor


class BankRows(NamedTuple):
    """Sampled tokens (n, C) float32, and the data-set index (n,) int64 of each token's image."""

    tokens: Tensor
    images: Tensor


def sample_tokens(
    targets: Targets, indices: np.ndarray, share: float, *, seed: int, draw: int
) -> tuple[BankRows, BankRows]:
    """Draw floor(share * n) tokens without replacement from each image's foreground, and from its background.

    Args:
        targets: targets of B images.
        indices: (B,) data-set indices of the images, which key the draw.
        share: share of the tokens to keep, in [0, 1].
        seed: the run's seed.
        draw: number of the bank pass.

    Returns:
        Foreground rows and background rows, each in image and token order.
    """
    tokens_BNC, foreground_BN = targets
    scores = np.stack(
        [generator(seed, "bank", draw, int(index)).random(tokens_BNC.shape[1]) for index in indices]
    )
    scores_BN = torch.from_numpy(scores).to(tokens_BNC.device)
    images_BN = torch.as_tensor(indices, device=tokens_BNC.device)[:, None].expand_as(foreground_BN)
    chosen = [_lowest_share(scores_BN, member_BN, share) for member_BN in (foreground_BN, ~foreground_BN)]
    foreground, background = (BankRows(tokens_BNC[rows].float(), images_BN[rows]) for rows in chosen)
    return foreground, background


def _lowest_share(scores_BN: Tensor, member_BN: Tensor, share: float) -> Tensor:
    """Mark each row's floor(share * members) members of lowest score."""
    rank_BN = scores_BN.masked_fill(~member_BN, torch.inf).argsort(dim=1).argsort(dim=1)
    quota_B = (member_BN.sum(dim=1).double() * share).floor()
    return member_BN & (rank_BN < quota_B[:, None])
