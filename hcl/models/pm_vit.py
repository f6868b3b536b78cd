"""PM-ViT: one frozen Vision Transformer at several patch sizes in parallel (HCL, section 1)."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcl.models.vit import Grid, VisionTransformer
from hcl.precision import product_dtype
from kernels.aggregate import aggregate_tokens

# How many resized position tables are cached; photographs of many shapes would otherwise fill the memory.
MOST_TABLES = 16


class LevelTokens(NamedTuple):
    """Tokens of every level, finest first.

    Attributes:
        sequences: per level (B, 1 + h_l·w_l, D): [CLS], then row-major patches.
        grids: per level (h_l, w_l).
        cls_attention: (B, heads, h_0, w_0): attention of level 0's [CLS] to its patches in the last block.
    """

    sequences: tuple[Tensor, ...]
    grids: tuple[Grid, ...]
    cls_attention: Tensor

    def halves(self) -> tuple[Self, Self]:
        """The levels of the first half of the images and those of the second, as views."""
        pairs = [tokens.chunk(2) for tokens in (*self.sequences, self.cls_attention)]
        first, second = zip(*pairs, strict=True)
        return (
            self._replace(sequences=first[:-1], cls_attention=first[-1]),
            self._replace(sequences=second[:-1], cls_attention=second[-1]),
        )


class PMViT(nn.Module):
    """Runs a trained backbone at L patch sizes; never trains, and stays in evaluation mode.

    Args:
        vit: the backbone, its weights loaded.
        patch_sizes: patch sizes of the levels in pixels, finest first; the first is the backbone's own.

    Raises:
        ValueError: the patch sizes do not ascend from the backbone's own.
    """

    def __init__(self, vit: VisionTransformer, patch_sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = list(patch_sizes)
        if not sizes or sizes[0] != vit.config.patch_size or sizes != sorted(set(sizes)):
            raise ValueError(
                f"patch sizes {sizes} must be ascending, from the backbone's own, {vit.config.patch_size}"
            )
        self.vit = vit
        self.patch_sizes = tuple(sizes)
        self._positions: dict[tuple[Grid, torch.device, torch.dtype], Tensor] = {}
        self._derive()
        self.register_load_state_dict_post_hook(_derive_anew)
        self.requires_grad_(False)
        self.eval()

    @property
    def embed_dim(self) -> int:
        """Channels D of a token."""
        return self.vit.config.width

    @property
    def levels(self) -> int:
        """Number of levels L."""
        return len(self.patch_sizes)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the mode of the surrounding module."""
        return super().train(False)

    def forward(self, images: Tensor) -> LevelTokens:
        """Tokens of all levels, before the backbone's final LayerNorm.

        Args:
            images: (B, 3, H, W), normalised. Each level drops border pixels that do not fill a patch.

        Raises:
            ValueError: the images are not (B, 3, H, W), or are smaller than a patch of the coarsest level.
        """
        self._check(images)
        grids = tuple((images.shape[2] // size, images.shape[3] // size) for size in self.patch_sizes)
        images = images.to(product_dtype(images))  # once for all levels
        embedded = [
            self.vit.embed(images, self.kernel(size), self._patch_positions(grid))
            for size, grid in zip(self.patch_sizes, grids, strict=True)
        ]
        lengths = [tokens.shape[1] for tokens in embedded]
        tokens, attention = self.vit(torch.cat(embedded, dim=1), lengths)
        sequences = tuple(self._without_registers(part) for part in tokens.split(lengths, dim=1))
        return LevelTokens(sequences, grids, attention.unflatten(-1, grids[0]))

    def pair(self, views: tuple[Tensor, Tensor]) -> tuple[LevelTokens, LevelTokens]:
        """Normalised levels of two views (B, 3, H, W) of the same images, computed as one batch."""
        first, second = self.normalised(self(torch.cat(views))).halves()
        return first, second

    def normalised(self, levels: LevelTokens) -> LevelTokens:
        """Apply the backbone's final LayerNorm to the levels."""
        return levels._replace(sequences=tuple(self.vit.norm(tokens) for tokens in levels.sequences))

    def concatenated(self, levels: LevelTokens) -> Tensor:
        """z (B, h_0·w_0, (L + 1)·D) from un-normalised levels: all levels on the finest grid, then [CLS]."""
        norm = self.vit.norm
        return aggregate_tokens(levels.sequences, levels.grids, norm.weight, norm.bias, eps=norm.eps)

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
        if min(images.shape[2:]) < self.patch_sizes[-1]:
            raise ValueError(
                f"images of {images.shape[2]}x{images.shape[3]} pixels are smaller than a patch of the "
                f"coarsest level, {self.patch_sizes[-1]}x{self.patch_sizes[-1]}"
            )

    def _derive(self) -> None:
        """Compute everything that is derived from the backbone's weights."""
        self._positions.clear()
        own = self.vit.patch_embed.proj.weight
        for size in self.patch_sizes[1:]:
            self.register_buffer(f"kernel_{size}", pi_resize(own.detach(), size), persistent=False)

    def kernel(self, size: int) -> Tensor:
        """The patch kernel (D, 3, size, size) of one level."""
        if size == self.patch_sizes[0]:
            return self.vit.patch_embed.proj.weight
        return self.get_buffer(f"kernel_{size}")

    def _patch_positions(self, grid: Grid) -> Tensor:
        # A compiled graph contains the resizing: a cache that changes would make it compile again.
        if torch.compiler.is_compiling():
            return self.vit.patch_positions(grid)
        table = self.vit.pos_embed
        key = (grid, table.device, table.dtype)
        kept = self._positions.pop(key, None)
        self._positions[key] = self.vit.patch_positions(grid) if kept is None else kept
        if len(self._positions) > MOST_TABLES:
            del self._positions[next(iter(self._positions))]
        return self._positions[key]

    def _without_registers(self, tokens: Tensor) -> Tensor:
        registers = self.vit.config.registers
        if not registers:
            return tokens
        return torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], dim=1)


def _derive_anew(module: nn.Module, _: object) -> None:
    assert isinstance(module, PMViT)
    module._derive()


def pi_resize(kernel: Tensor, size: int) -> Tensor:
    """FlexiViT's pseudo-inverse resize of a patch kernel (HCL, section 1).

    With B the matrix of the bicubic, antialiased resize of a patch, one row per basis patch, the new kernel
    is pinv(B) · vec(kernel): on resized patches it gives the tokens that the old kernel gives on the original
    patches.

    Args:
        kernel: (D, C, p, p).
        size: side of the new kernel in pixels.

    Returns:
        (D, C, size, size) of the kernel's dtype.
    """
    side = kernel.shape[-1]
    basis = torch.eye(side, dtype=torch.float64, device=kernel.device)[None, None]
    resize = F.interpolate(basis, size=(side, size), mode="bicubic", antialias=True)[0, 0]
    # The resize is separable and the same for both axes, B = R ⊗ R, and pinv(R ⊗ R) = pinv(R) ⊗ pinv(R).
    inverse = torch.linalg.pinv(resize)
    return (inverse @ kernel.double() @ inverse.mT).to(kernel.dtype)
