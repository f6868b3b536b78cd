"""SegHead with its projector, and the predictor (HCL, section 2).

Modules have the same names as in the published program, so that state dicts can be exchanged with it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from hcl.bounds import require_at_least
from hcl.models.linear import Linear
from hcl.models.pm_vit import LevelTokens
from hcl.models.vit import Block, initialise
from kernels.aggregate import fuse_tokens
from kernels.precision import compute_dtype


@dataclass
class SegHeadConfig:
    """Shape of the SegHead.

    Args:
        kind: what mixes the fused tokens: a transformer "block", or an "mlp" on each token alone.
        width: channels E of a component token.
        hidden: width of the hidden layers of the projector, the predictor and the "mlp".
        projection_dim: channels C of a projected token.
        heads: attention heads of the "block".
    """

    kind: Literal["block", "mlp"] = "block"
    width: int = 768
    hidden: int = 2048
    projection_dim: int = 256
    heads: int = 12

    def __post_init__(self) -> None:
        if self.kind not in ("block", "mlp"):
            raise ValueError(f"SegHead kind {self.kind!r} is not known; choose 'block' or 'mlp'")
        require_at_least(1, self, "width", "hidden", "projection_dim", "heads", prefix="SegHead ")
        if self.kind == "block" and self.width % self.heads:
            raise ValueError(f"SegHead width {self.width} cannot be divided among {self.heads} heads")


class SegHead(nn.Module):
    """Fuses the levels into component tokens (S), and projects those for the loss (G).

    Args:
        in_features: channels (L + 1)·D of the concatenated levels.
        config: the head's shape.
    """

    def __init__(self, in_features: int, config: SegHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.in_features = in_features
        width, hidden = config.width, config.hidden
        self.multi_scale_fuser = Linear(in_features, width)
        self.norm = nn.LayerNorm(width)
        self.seg_head: nn.Module
        if config.kind == "block":
            self.seg_head = Block(width, config.heads, eps=1e-5)
        else:
            self.seg_head = _mlp(width, hidden, hidden, width)
        self.norm_2 = nn.LayerNorm(width)
        self.projection_head = _mlp(width, hidden, hidden, config.projection_dim)
        initialise(self)

    def tokens(self, levels: LevelTokens) -> Tensor:
        """Component tokens (B, h_0·w_0, E) of levels after the backbone's final LayerNorm."""
        fuser, norm = self.multi_scale_fuser, self.norm
        fused = fuse_tokens(
            levels.sequences, levels.grids, fuser.weight, fuser.bias, norm.weight, norm.bias, eps=norm.eps
        )
        return self.norm_2(self.seg_head(fused))

    def project(self, tokens: Tensor) -> Tensor:
        """Component tokens (B, N, E) to L2-normalised projections (B, N, C), float32 at least."""
        return _normalised(self.projection_head(tokens))

    def forward(self, levels: LevelTokens) -> Tensor:
        """Projections (B, h_0·w_0, C) of normalised levels."""
        return self.project(self.tokens(levels))


class Predictor(nn.Sequential):
    """Predicts the momentum branch's projection from the online one's (P); L2-normalised."""

    def __init__(self, dim: int = 256, hidden: int = 2048) -> None:
        super().__init__(*_mlp(dim, hidden, dim))
        initialise(self)

    def forward(self, q: Tensor) -> Tensor:
        """Projections (..., C) to predictions (..., C), float32 at least."""
        return _normalised(super().forward(q))


def _normalised(tokens: Tensor) -> Tensor:
    """Scale to unit length; a CPU's autocast would divide in bfloat16: lengths off by half a per cent."""
    return F.normalize(tokens.to(compute_dtype(tokens)), dim=-1)


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [Linear(width, following), nn.GELU()]
    return nn.Sequential(*layers[:-1])
