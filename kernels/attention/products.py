"""bfloat16 attention on a CPU by whole matrix products, which suit its matrix units better than small tiles.

torch's fused form multiplies small tiles and never writes an n x n matrix. Here a batched product writes one,
for a few heads at a time, so that it stays in the caches. The rounding error of a bfloat16 logit grows with
its magnitude, so a second product subtracts each row's maximum: the logits that matter are then small and
lose little.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.attention import reference
from kernels.precision import without_autocast

SHORTEST, LONGEST = 128, 8192
"""Fewest tokens for which this form pays off, and most for which an n x n matrix is small."""
WEIGHTS_AT_A_TIME = 2**22


def suits(qkv: Tensor, lengths: Sequence[int]) -> bool:
    """Return whether this form is faster: on a CPU with bfloat16 instructions, without gradient."""
    return (
        qkv.device.type == "cpu"
        and qkv.dtype == torch.bfloat16
        and any(SHORTEST <= length <= LONGEST for length in lengths)
        and not (torch.is_grad_enabled() and qkv.requires_grad)
        and not torch.compiler.is_compiling()
        and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )


@torch.no_grad()
def attend(qkv: Tensor, lengths: Sequence[int]) -> Tensor:
    """Compute softmax(q k^T / sqrt(d)) v separately for each sequence of (B, N, 3, heads, d)."""
    out = torch.empty_like(qkv[:, :, 0], memory_format=torch.contiguous_format)
    parts = zip(qkv.split(list(lengths), dim=1), out.split(list(lengths), dim=1), strict=True)
    with without_autocast(qkv):
        for sequence, room in parts:
            if SHORTEST <= sequence.shape[1] <= LONGEST:
                room.copy_(_attend(sequence))
            else:
                room.copy_(reference.attend(sequence, None).view(room.shape))
    return out.flatten(2)


def _attend(qkv: Tensor) -> Tensor:
    """Attend one sequence (B, n, 3, heads, d). (B, n, heads, d)."""
    batch, tokens, _, heads, width = qkv.shape
    q, k, v = (each.transpose(1, 2).flatten(0, 1).contiguous() for each in qkv.unbind(2))
    # One more column of q meets ones in k, which shifts all logits of a row; another one makes pairs.
    queries, keys = (each.new_zeros(batch * heads, tokens, width + 2) for each in (q, k))
    # A power of two rounds nothing; the rest of the scale is applied when the logits are small.
    exponent = math.floor(math.log2(width**-0.5))
    torch.mul(q, 2.0**exponent, out=queries[..., :width])
    keys[..., :width], keys[..., width] = k, 1
    out = torch.empty_like(q)
    step = max(WEIGHTS_AT_A_TIME // tokens**2, 1)
    weights = q.new_empty(min(step, batch * heads), tokens, tokens)
    for start in range(0, batch * heads, step):
        some = slice(start, start + step)
        room = weights[: len(out[some])]
        _attend_heads(queries[some], keys[some], v[some], out[some], room, width**-0.5 / 2.0**exponent)
    return out.unflatten(0, (batch, heads)).transpose(1, 2)


def _attend_heads(
    queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, weights: Tensor, scale: float
) -> None:
    """Attend some heads; the queries' last but one column holds the shift, and `weights` is a buffer."""
    torch.bmm(queries, keys.transpose(1, 2), out=weights)
    torch.neg(weights.amax(dim=2), out=queries[..., -2])
    torch.bmm(queries, keys.transpose(1, 2), out=weights)
    if scale != 1:
        weights.mul_(scale)
    torch.softmax(weights, dim=2, out=weights)
    torch.bmm(weights, values, out=out)
