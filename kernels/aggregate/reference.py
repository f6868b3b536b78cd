"""Multi-level token aggregation in plain torch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kernels.aggregate.grid import Grid


def aggregate_tokens(
    sequences: Sequence[Tensor],
    grids: Sequence[Grid],
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
) -> Tensor:
    """Compute concat(LN(x_0), up(LN(x_1)), ..., LN(cls_0)) along channels."""
    normalised = [F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps) for x in sequences]
    patches = [upsample(x[:, 1:], grid, grids[0]) for x, grid in zip(normalised, grids, strict=True)]
    cls = normalised[0][:, :1].expand_as(patches[0])
    return torch.cat([*patches, cls], dim=-1)


def fuse_tokens(
    sequences: Sequence[Tensor],
    grids: Sequence[Grid],
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
) -> Tensor:
    """Compute LN(W_0 x_0 + sum_l up(W_l x_l) + W_c cls_0 + b), where W = [W_0, W_1, ..., W_c]."""
    *level_weights, cls_weight = weight.split(sequences[0].shape[-1], dim=1)
    fused = F.linear(sequences[0][:, :1], cls_weight, bias)
    for x, grid, level_weight in zip(sequences, grids, level_weights, strict=True):
        fused = fused + upsample(F.linear(x, level_weight)[:, 1:], grid, grids[0])
    return F.layer_norm(fused, fused.shape[-1:], norm_weight, norm_bias, eps)


def upsample(tokens: Tensor, grid: Grid, target: Grid) -> Tensor:
    """Interpolate (B, h*w, D) tokens bilinearly from one grid to another, (B, H*W, D)."""
    if grid == target:
        return tokens
    maps = rearrange(tokens, "b (h w) d -> b d h w", h=grid[0])
    resized = F.interpolate(maps, size=target, mode="bilinear", align_corners=False)
    return rearrange(resized, "b d h w -> b (h w) d")
