"""The targets that the momentum branch gives for a view: its tokens, and which of them are foreground."""

import torch

from hcl.clustering.sampling import Targets
from hcl.models.hcl import HCL
from hcl.models.pm_vit import LevelTokens
from kernels.foreground import foreground_mask


@torch.no_grad()
def level_targets(model: HCL, levels: LevelTokens, keep_mass: float) -> Targets:
    """Momentum tokens and foreground map of one view (HCL, sections 3 and 4).

    Args:
        model: its momentum head makes the tokens.
        levels: the backbone's tokens of the view, after its final LayerNorm.
        keep_mass: share of the CLS attention that is kept as foreground.
    """
    foreground = foreground_mask(levels.cls_attention, keep_mass)
    return Targets(model.momentum(levels), foreground.flatten(1))
