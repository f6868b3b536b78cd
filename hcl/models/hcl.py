"""The whole model: a frozen backbone, the branch that trains, and its moving average (HCL, section 5)."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from hcl.models.pm_vit import LevelTokens, PMViT
from hcl.models.seg_head import Predictor, SegHead, SegHeadConfig


class OnlineBranch(nn.Module):
    """SegHead and predictor: everything that the optimiser updates."""

    def __init__(self, in_features: int, config: SegHeadConfig) -> None:
        super().__init__()
        self.seg_head = SegHead(in_features, config)
        self.predictor = Predictor(config.projection_dim, config.hidden)

    def forward(self, levels: LevelTokens) -> tuple[Tensor, Tensor]:
        """Compute projections q and their predictions, each (B, h_0·w_0, C), from normalised levels."""
        q = self.seg_head(levels)
        return q, self.predictor(q)


class HCL(nn.Module):
    """Backbone, online branch and momentum head.

    Args:
        backbone: frozen.
        head_config: shape of both heads; the momentum head starts as a copy of the online one.
    """

    def __init__(self, backbone: PMViT, head_config: SegHeadConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.online = OnlineBranch((backbone.levels + 1) * backbone.embed_dim, head_config)
        self.momentum = deepcopy(self.online.seg_head).requires_grad_(False)

    @torch.no_grad()
    def update_momentum(self, momentum: float, hold: Tensor | None = None) -> None:
        """Move the momentum head towards the online one: w ← m·w + (1 - m)·w_online.

        Args:
            momentum: m.
            hold: 0-d bool on the model's device; if true, nothing moves, and the host need not know.

        Raises:
            ValueError: the momentum is not in [0, 1].
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {momentum}; it must lie in [0, 1]")
        averaged: list[Tensor] = list(self.momentum.parameters())
        online: list[Tensor] = list(self.online.seg_head.parameters())
        share: float | Tensor = 1 - momentum
        if hold is not None:
            share = share * (~hold).to(averaged[0].dtype)
        ways = torch._foreach_sub(online, averaged)
        torch._foreach_mul_(ways, share)
        torch._foreach_add_(averaged, ways)
