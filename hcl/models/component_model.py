"""A trained HCL as one module: PM-ViT, SegHead and the foreground of the attention."""

from torch import Tensor, nn

from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHead
from kernels.foreground import foreground_mask


class ComponentModel(nn.Module):
    """Maps images to component tokens; frozen and in evaluation mode.

    Args:
        backbone: PM-ViT.
        head: SegHead that fits the backbone's levels.
        keep_mass: share of the attention that is foreground, theta, in (0, 1].

    Raises:
        ValueError: the head does not fit the backbone.
    """

    def __init__(self, backbone: PMViT, head: SegHead, keep_mass: float = 0.7) -> None:
        super().__init__()
        require_fit(backbone, head)
        self.backbone = backbone
        self.head = head
        self.keep_mass = keep_mass
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Component tokens, attention and foreground of normalised images (HCL, sections 1 to 3).

        Args:
            images: (B, 3, H, W), normalised with ImageNet's mean and standard deviation.

        Returns:
            tokens (B, h·w, E); attention (B, heads, h, w), what [CLS] attends to in the last block;
            foreground (B, h, w) bool. h = H // P and w = W // P with the finest level's patch size P.
        """
        levels = self.backbone(images)
        tokens = self.head.tokens(self.backbone.normalised(levels))
        return tokens, levels.cls_attention, foreground_mask(levels.cls_attention, self.keep_mass)


def require_fit(backbone: PMViT, head: SegHead) -> None:
    """Raise a ValueError, which names both widths, if a head does not fit a backbone's levels."""
    given = (backbone.levels + 1) * backbone.embed_dim
    if head.in_features != given:
        raise ValueError(
            f"the head takes {head.in_features} channels, but the backbone gives {given} "
            f"({backbone.levels} levels and [CLS], {backbone.embed_dim} channels each): choose the backbone "
            "and the patch sizes that the head was trained on"
        )
