"""What the momentum branch says of a view: its tokens, and which of them are foreground."""

from typing import NamedTuple

import torch
from torch import Tensor

from hcl.models.hcl import HCL
from kernels.foreground import foreground_mask


class Targets(NamedTuple):
    """Momentum tokens (B, N, C), L2-normalised, and their foreground flags (B, N), bool."""

    tokens: Tensor
    foreground: Tensor


@torch.no_grad()
def momentum_targets(model: HCL, images: Tensor, keep_mass: float) -> Targets:
    """Momentum tokens and foreground map of one view (HCL, sections 3 and 4).

    Args:
        images: (B, 3, H, W), normalised.
        keep_mass: share of the CLS attention that is kept as foreground.
    """
    levels = model.backbone(images)
    foreground = foreground_mask(levels.cls_attention, keep_mass)
    return Targets(model.momentum(model.backbone.normalised(levels)), foreground.flatten(1))
