"""The contrastive loss in Triton: launchers and registration; the kernels are in `triton_kernels`.

Tokens are first partitioned by bank on the device, so that every tile belongs to one bank: a tile of
consecutive tokens covers several rows of a map, nearly always has tokens of both banks, and would have to be
compared with both.
"""

import functools
import math
from typing import Any

import torch
import triton
from torch import Tensor

from kernels.fba.tiles import backward_tiles, compile_cases, constants, forward_tiles, gradient_dtype
from kernels.fba.triton_kernels import fba_bwd_kernel, fba_fwd_kernel
from kernels.tl_utils import is_cramped, is_hopper

__all__ = ["compile_cases", "fba_contrastive"]

LOG2_E = math.log2(math.e)
# Every bank begins at a multiple of this, and so at a multiple of any tile's tokens.
PARTITION_BLOCK = 128


@torch.library.custom_op("hcl_kernels::fba_forward", mutates_args=())
def fba_forward(
    q: Tensor,
    k: Tensor,
    tokens: Tensor,
    count_fg: Tensor,
    centroids: Tensor,
    squares: Tensor,
    scales: Tensor,
    clusters_fg: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the forward kernel. Summed losses (2,) float32, assignment (M,) int64, log-sum-exp (M,) float32."""
    dtype = _dot_dtype(q, k, centroids)
    tile = forward_tiles(q.shape[1], dtype, hopper=is_hopper(q), cramped=is_cramped(q))
    programs = len(tokens) // tile.tokens
    losses = torch.empty(programs, 2, dtype=torch.float32, device=q.device)
    assignment = torch.empty(len(q), dtype=torch.int64, device=q.device)
    lse = torch.empty(len(q), dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        fba_fwd_kernel[(programs,)](
            q.contiguous(),
            k.contiguous(),
            tokens,
            count_fg,
            centroids,
            squares,
            scales,
            losses,
            assignment,
            lse,
            len(q),
            clusters_fg,
            len(centroids),
            **constants(tile, q.shape[1], dtype),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return losses.sum(dim=0), assignment, lse


@fba_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    tokens: Tensor,
    count_fg: Tensor,
    centroids: Tensor,
    squares: Tensor,
    scales: Tensor,
    clusters_fg: int,
) -> tuple[Tensor, Tensor, Tensor]:
    sums = q.new_empty(2, dtype=torch.float32)
    return sums, q.new_empty(len(q), dtype=torch.int64), q.new_empty(len(q), dtype=torch.float32)


@torch.library.custom_op("hcl_kernels::fba_backward", mutates_args=())
def fba_backward(
    grad_losses: Tensor,
    q: Tensor,
    tokens: Tensor,
    count_fg: Tensor,
    centroids: Tensor,
    scales: Tensor,
    assignment: Tensor,
    lse: Tensor,
    clusters_fg: int,
) -> Tensor:
    """Run the backward kernel, which recomputes the softmax. dL/dq (M, C) of q's dtype."""
    width = q.shape[1]
    dtype = gradient_dtype(_dot_dtype(q, centroids))
    tile = backward_tiles(width, dtype, hopper=is_hopper(q), cramped=is_cramped(q))
    grad_q = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    with torch.cuda.device_of(q):
        fba_bwd_kernel[(len(tokens) // tile.tokens, triton.cdiv(width, tile.gradient_columns))](
            grad_losses.contiguous(),
            q.contiguous(),
            tokens,
            count_fg,
            centroids,
            scales,
            assignment,
            lse,
            grad_q,
            len(q),
            clusters_fg,
            len(centroids),
            **constants(tile, width, dtype),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return grad_q


@fba_backward.register_fake
def _(
    grad_losses: Tensor,
    q: Tensor,
    tokens: Tensor,
    count_fg: Tensor,
    centroids: Tensor,
    scales: Tensor,
    assignment: Tensor,
    lse: Tensor,
    clusters_fg: int,
) -> Tensor:
    return q.new_empty(q.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, _, tokens, count_fg, centroids, _, scales, ctx.clusters_fg = inputs
    ctx.save_for_backward(q, tokens, count_fg, centroids, scales, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _gradient(ctx: Any, grad_losses: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grad_q = fba_backward(grad_losses, *ctx.saved_tensors, ctx.clusters_fg)
    return grad_q, *(None,) * 7


fba_forward.register_autograd(_gradient, setup_context=_save_for_backward)


def fba_contrastive(
    q: Tensor,
    k: Tensor,
    foreground: Tensor,
    centroids_fg: Tensor,
    centroids_bg: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the losses, the counts (foreground first) and the assignment, as the reference does."""
    centroids = torch.cat([centroids_fg, centroids_bg]).detach()
    # In float64: an error here affects all logits of a centroid, and no sum averages it out.
    lengths = torch.linalg.vector_norm(centroids, dim=1, dtype=torch.float64)
    squares = lengths.square().float()
    scales = torch.where(lengths > 0, (LOG2_E / temperature) / lengths.clamp(min=1e-12), 0).float()
    count_fg = foreground.sum()
    tokens = partition(foreground, count_fg, PARTITION_BLOCK)
    clusters_fg = len(centroids_fg)
    sums, assignment, _ = fba_forward(q, k, tokens, count_fg, centroids, squares, scales, clusters_fg)
    count_bg = len(q) - count_fg
    loss_fg, loss_bg = sums / torch.stack([count_fg, count_bg]).clamp(min=1)
    return loss_fg, loss_bg, count_fg, count_bg, assignment


def partition(foreground: Tensor, count_fg: Tensor, block: int) -> Tensor:
    """List the foreground's tokens, then the background's, in order; each bank begins a new block.

    Returns:
        The tokens' indices, padded with M to a number of blocks that does not depend on the data.
    """
    index = torch.arange(len(foreground), device=foreground.device)
    rank_fg = foreground.cumsum(dim=0)
    begin_bg = (count_fg + block - 1) // block * block
    slot = torch.where(foreground, rank_fg - 1, begin_bg + index - rank_fg)
    blocks = (len(foreground) + block - 1) // block + 1
    return index.new_full((blocks * block,), len(foreground)).scatter(0, slot, index)


def _dot_dtype(*tensors: Tensor) -> torch.dtype:
    return functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
