"""The trained network: the backbone, a projector for its [CLS] token and one for its patches."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcl.models.backbones import BACKBONES
from hcl.models.vit import VisionTransformer


class Output(NamedTuple):
    """Output for crops of one size: [CLS] (B, D), patches (B, N, D), attention of [CLS] (B, heads, N)."""

    cls: Tensor
    patches: Tensor
    attention: Tensor


class Projector(nn.Module):
    """Maps tokens (M, D) to cosines with prototypes (M, K); batch norms spread the tokens from the start."""

    def __init__(self, width: int, prototypes: int, hidden: int = 256, dim: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, dim),
            nn.BatchNorm1d(dim, affine=False),
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (M, D) to cosines (M, K)."""
        return F.normalize(self.mlp(tokens), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class Network(nn.Module):
    """The backbone with its two projectors and the token that stands in for masked patches."""

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        shape = BACKBONES["tiny"].vit
        self.vit = VisionTransformer(shape)
        self.cls = Projector(shape.width, prototypes)
        self.patches = Projector(shape.width, prototypes)
        self.mask_token = nn.Parameter(torch.zeros(shape.width))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.25 * layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        for table in (self.vit.cls_token, self.vit.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Output:
        """Run images (B, 3, S, S) through the backbone; patches where mask (B, N) is true are hidden."""
        vit = self.vit
        side = images.shape[-1] // vit.config.patch_size
        positions = vit.patch_positions((side, side))
        tokens = vit.embed(images, vit.patch_embed.proj.weight, positions)
        if mask is not None:
            hidden = torch.where(mask[..., None], self.mask_token + positions, tokens[:, 1:])
            tokens = torch.cat([tokens[:, :1], hidden], dim=1)
        for block in vit.blocks[:-1]:
            tokens = block(tokens)
        # Detached: the attention loss only teaches [CLS] where to look; the other losses train the tokens.
        attention = vit.blocks[-1].cls_row(tokens.detach())[..., 1:]
        tokens = vit.norm(vit.blocks[-1](tokens))
        return Output(tokens[:, 0], tokens[:, 1:], attention)
