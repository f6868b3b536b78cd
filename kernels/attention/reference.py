"""Attention within concatenated sequences, in plain torch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(qkv: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """Compute softmax(q k^T / sqrt(d)) v separately for each sequence; differentiable."""
    qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, B, heads, N, d)
    if lengths is None:
        return _attend(qkv).flatten(2)
    mixed = [_attend(sequence) for sequence in qkv.split(list(lengths), dim=3)]
    return torch.cat(mixed, dim=1).flatten(2)


def _attend(qkv: Tensor) -> Tensor:
    q, k, v = qkv.unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
