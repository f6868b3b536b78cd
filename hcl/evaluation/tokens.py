"""Tokens of images: the SegHead's component tokens, PM-ViT's concatenated levels, or the backbone's own."""

from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hcl.models.component_model import require_fit
from hcl.models.digest import digest_of_weights
from hcl.models.number_format import prepare
from hcl.models.pm_vit import LevelTokens, PMViT
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.precision import Precision, mixed

TokenKind = Literal["head", "pmvit", "backbone"]


class ImageTokens(NamedTuple):
    """Output of the frozen model for a batch of images.

    tokens (B, h·w, C) float32; attention (B, heads, h, w) float32: the attention of [CLS] in the last block
    at the finest level.
    """

    tokens: Tensor
    attention: Tensor


class TokenExtractor:
    """Extractor of frozen tokens, on the grid of the finest level.

    Args:
        backbone: PM-ViT.
        kind: ``head`` for the component tokens S(z), ``pmvit`` for z, ``backbone`` for the patch tokens of
            level 0 after the final LayerNorm.
        head: required for kind ``head``, None for the others.
        device: device to compute on.
        precision: precision of the forward pass; the tokens are float32 in any case.

    Raises:
        ValueError: kind and head do not go together, or the device does not support the precision.

    Attributes:
        channels: number of channels of a token.
        attention_heads: number of attention heads of the backbone.
    """

    def __init__(
        self,
        backbone: PMViT,
        kind: TokenKind,
        head: SegHead | None = None,
        *,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        if (kind == "head") != (head is not None):
            raise ValueError(f"tokens of kind {kind!r} {'cannot have' if head else 'need'} a head")
        # The backbone's own tokens need no other level.
        levels = PMViT(backbone.vit, backbone.patch_sizes[:1]) if kind == "backbone" else backbone
        self.backbone = prepare(levels.to(device), precision, device)
        self.head = head.to(device).eval().requires_grad_(False) if head else None
        self.device = device
        self.kind = kind
        self.precision = precision
        self.channels = self._channels()
        self.attention_heads = backbone.vit.config.heads

    def _channels(self) -> int:
        width = self.backbone.embed_dim
        concatenated = (self.backbone.levels + 1) * width
        if self.head is None:
            return concatenated if self.kind == "pmvit" else width
        require_fit(self.backbone, self.head)
        return self.head.config.width

    @cached_property
    def backbone_digest(self) -> str:
        """SHA-256 of the backbone's weights."""
        return digest_of_weights(self.backbone)

    def grid(self, size: int) -> tuple[int, int]:
        """Return the rows and columns of tokens in a square image.

        Raises:
            ValueError: patches do not tile the image, so that tokens and labels would not align, or the image
                is smaller than a patch of the coarsest level.
        """
        patch = self.backbone.patch_sizes[0]
        if size % patch or size < self.backbone.patch_sizes[-1]:
            raise ValueError(
                f"size {size} must be a multiple of the patch size {patch} and at least "
                f"{self.backbone.patch_sizes[-1]}: use --size {-(-max(size, 56) // patch) * patch}"
            )
        return size // patch, size // patch

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> ImageTokens:
        """Compute tokens and attention of normalised images (B, 3, H, W), on the extractor's device."""
        with mixed(self.device, self.precision):
            levels = self.backbone(images.to(self.device))
            return ImageTokens(self._tokens(levels).float(), levels.cls_attention.float())

    def _tokens(self, levels: LevelTokens) -> Tensor:
        if self.kind == "pmvit":
            return self.backbone.concatenated(levels)
        levels = self.backbone.normalised(levels)
        return levels.sequences[0][:, 1:] if self.head is None else self.head.tokens(levels)


def untrained_head(backbone: PMViT, config: SegHeadConfig, seed: int) -> SegHead:
    """Return a head as it is initialised for training, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SegHead((backbone.levels + 1) * backbone.embed_dim, config)
