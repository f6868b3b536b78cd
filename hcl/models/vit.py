"""Vision Transformer with DINO's and DINOv2's state-dict keys.

Tokens of several sequences may lie side by side in one tensor (B, N_0 + N_1 + ..., D): linear layers, norms
and MLPs then run once over all of them, and only attention looks at the sequences' lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from hcl.models.linear import Linear
from kernels.attention import attend
from kernels.linear import linear

Grid = tuple[int, int]


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a Vision Transformer; the defaults are DINO's ViT-S/16.

    Args:
        patch_size: side of a patch in pixels.
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        table: side of the learned table of position embeddings, in patches.
        registers: register tokens between [CLS] and the patches.
        layer_scale: whether the blocks scale their two branches (DINOv2).
        position_offset: added to a grid's sides to get the scale that the table is resized by. 0 resizes to
            the grid itself, as DINOv2's models with registers do.
        antialias: whether the table is smoothed (antialiased) when it is shrunk.
    """

    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    table: int = 14
    registers: int = 0
    layer_scale: bool = False
    position_offset: float = 0.1
    antialias: bool = False


class Attention(nn.Module):
    """Multi-head self-attention within each sequence."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be divided among {heads} heads")
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Attend within sequences of the given lengths, which sum to N; without lengths x is one sequence."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        return self.proj(attend(qkv, lengths))

    def cls_row(self, x: Tensor) -> Tensor:
        """Softmax attention of the first token of x (B, N, D) to all tokens: (B, heads, N)."""
        w_q, w_k, _ = self.qkv.weight.unflatten(0, (3, self.heads, -1)).unbind(0)  # each (heads, d, D)
        b_q = self.qkv.bias.unflatten(0, (3, self.heads, -1))[0]
        q = torch.einsum("bc,hdc->bhd", x[:, 0], w_q) + b_q
        # Multiplying the one query by the key weights saves computing a key for every token. A key's bias
        # adds the same to all logits of a head, so it cancels in the softmax.
        query = torch.einsum("bhd,hdc->bhc", q * q.shape[-1] ** -0.5, w_k)
        return (query @ x.transpose(1, 2)).softmax(dim=-1)


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., width) to tokens (..., width)."""
        return self.fc2(self.fc1.activated(x))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale tokens (..., width)."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block with an MLP four times as wide."""

    def __init__(self, width: int, heads: int, *, eps: float, layer_scale: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, 4 * width)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D); lengths as in `Attention`."""
        x = x + self.ls1(self.attn(self.norm1(x), lengths))
        return x + self.ls2(self.mlp(self.norm2(x)))

    def cls_row(self, x: Tensor) -> Tensor:
        """Attention (B, heads, N) of the first token of this block's input (B, N, D)."""
        return self.attn.cls_row(self.norm1(x))


class PatchEmbedding(nn.Module):
    """Holds the kernel that turns a patch into a token."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)


class VisionTransformer(nn.Module):
    """DINO's or DINOv2's backbone, without a classifier.

    The patch kernel is an argument of `embed`, so that one set of weights serves several patch sizes.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.table**2, width))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, width))
        self.patch_embed = PatchEmbedding(config.patch_size, width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, eps=1e-6, layer_scale=config.layer_scale) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def embed(self, images: Tensor, kernel: Tensor, patch_positions: Tensor) -> Tensor:
        """Tokens before the first block: [CLS], registers, row-major patches.

        Args:
            images: (B, 3, H, W); border pixels that do not fill a patch are dropped.
            kernel: (D, 3, P, P), the patch kernel at this patch size.
            patch_positions: (1, h·w, D) with h = H // P and w = W // P, from `patch_positions`.

        Returns:
            (B, 1 + registers + h·w, D).
        """
        side = kernel.shape[-1]
        h, w = images.shape[2] // side, images.shape[3] // side
        whole = images[:, :, : h * side, : w * side]
        # A convolution whose stride equals its width is a matrix product, and is faster computed as one.
        rows = rearrange(whole, "b c (h p) (w q) -> b (h w) (c p q)", p=side, q=side)
        return self.sequence(linear(rows, kernel.flatten(1), self.patch_embed.proj.bias), patch_positions)

    def sequence(self, patches: Tensor, patch_positions: Tensor) -> Tensor:
        """Join [CLS], registers and patches (B, h·w, D), with positions: (B, 1 + registers + h·w, D)."""
        prefix = [self.cls_token + self.pos_embed[:, :1]]
        if self.config.registers:
            prefix.append(self.register_tokens)
        prefix = [token.expand(patches.shape[0], -1, -1) for token in prefix]
        return torch.cat([*prefix, patches + patch_positions], dim=1)

    def patch_positions(self, grid: Grid) -> Tensor:
        """The position table resized to a grid (h, w) of patches: (1, h·w, D)."""
        side, offset = self.config.table, self.config.position_offset
        table = self.pos_embed[:, 1:]
        if grid == (side, side):
            return table
        # The offset keeps floor(side · scale) from being one too small. It also shifts the sampling points,
        # so it is part of what the backbone was trained with.
        scale = tuple((n + offset) / side for n in grid) if offset else None
        resized = F.interpolate(
            rearrange(table, "b (h w) d -> b d h w", h=side),
            size=None if scale else grid,
            scale_factor=scale,
            mode="bicubic",
            antialias=self.config.antialias,
        )
        return rearrange(resized, "b d h w -> b (h w) d")

    def forward(self, x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Run the blocks over embedded sequences that lie side by side.

        Args:
            x: (B, N, D), N the sum of the lengths.
            lengths: tokens of each sequence.

        Returns:
            Tokens (B, N, D) before the final LayerNorm, and the attention (B, heads, h·w) of the first
            sequence's [CLS] in the last block, to patches only: [CLS] and registers are left out after the
            softmax.
        """
        for block in self.blocks[:-1]:
            x = block(x, lengths)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        attention = last.cls_row(x[:, : lengths[0]])
        return last(x, lengths), attention[..., 1 + self.config.registers :]


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Initialise all linear layers: weights truncated normal with std 0.02, biases 0 (HCL, section 2)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
            nn.init.zeros_(layer.bias)
