"""Exact search for the nearest tokens of a large memory, without the matrix of all similarities."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

QUERIES_AT_A_TIME = 1024
MEMORY_AT_A_TIME = 32768
SAMPLE = 4096
"""Maximum number of memory tokens from which the similarity of the k-th neighbour is estimated."""


class Neighbours(NamedTuple):
    """The most similar tokens of a memory, the nearest first.

    Attributes:
        similarity: (M, k) float32 scalar products.
        rows: (M, k) int64, their rows in the memory.
    """

    similarity: Tensor
    rows: Tensor


@torch.no_grad()
def nearest_tokens(queries: Tensor, memory: Tensor, k: int) -> Neighbours:
    """Find the k tokens of the memory with the greatest scalar product, for each query.

    Products are computed in the memory's dtype. bfloat16 is several times as fast as float32, but rounds to 8
    significant bits: around 0.8 in steps of 0.004, and a dense memory has many tokens within one step. So an
    estimate of the k-th neighbour's similarity is subtracted inside the product, before rounding. The
    difference is small, and therefore precise, close to the boundary between neighbours and other tokens. The
    best 2 k tokens are then ranked again by float32 products. Among tokens of equal similarity, any may be
    returned.

    Args:
        queries: (M, D) floating point, on the device to compute on.
        memory: (T, D) bfloat16 or float32, on any device or memory-mapped; moved to the device in pieces.
        k: number of neighbours.

    Raises:
        ValueError: the memory has fewer than k tokens, another number of channels, or another dtype.
    """
    _check(queries, memory, k)
    device, candidates = queries.device, min(2 * k, len(memory))
    coarse = queries.to(memory.dtype)
    bar = _bar(coarse, memory, k)
    similarity = torch.full((len(queries), candidates), -torch.inf, dtype=memory.dtype, device=device)
    rows = torch.zeros(len(queries), candidates, dtype=torch.int64, device=device)
    for start in range(0, len(memory), MEMORY_AT_A_TIME):
        piece = memory[start : start + MEMORY_AT_A_TIME].to(device)
        for part in _parts(len(queries)):
            products = torch.addmm(bar[part], coarse[part], piece.T, beta=-1)
            values, places = products.topk(min(candidates, len(piece)), dim=1)
            similarity[part], order = torch.cat([similarity[part], values], dim=1).topk(candidates, dim=1)
            rows[part] = torch.cat([rows[part], places + start], dim=1).gather(1, order)
    return _ranked(queries, memory, rows, k)


def _check(queries: Tensor, memory: Tensor, k: int) -> None:
    if queries.shape[1] != memory.shape[1]:
        raise ValueError(
            f"queries have {queries.shape[1]} channels, but the tokens of the memory have {memory.shape[1]}: "
            "use the same model for both"
        )
    if memory.dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"the memory is {memory.dtype}; it must be bfloat16 or float32")
    require_neighbours(k, len(memory))


def require_neighbours(k: int, tokens: int) -> None:
    """Raise a ValueError unless k is from 1 to the number of tokens in the memory."""
    if not 1 <= k <= tokens:
        raise ValueError(f"cannot find {k} neighbours in a memory of {tokens} tokens: choose 1 to {tokens}")


def _bar(queries: Tensor, memory: Tensor, k: int) -> Tensor:
    """Estimate the similarity of the k-th neighbour, (M, 1), by its quantile in a sample of the memory."""
    sample = memory[:: -(-len(memory) // SAMPLE)].to(queries.device)
    rank = max(k * len(sample) // len(memory), 1)
    parts = [(queries[part] @ sample.T).topk(rank, dim=1).values[:, -1:] for part in _parts(len(queries))]
    return torch.cat([queries.new_zeros(0, 1), *parts])


def _ranked(queries: Tensor, memory: Tensor, candidates: Tensor, k: int) -> Neighbours:
    """Return the k best of the candidates, which are rows of the memory, by float32 products."""
    similarity = torch.empty(len(queries), k, device=queries.device)
    rows = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    for part in _parts(len(queries)):
        tokens = memory[candidates[part].to(memory.device)].to(queries.device).float()
        products = (tokens @ queries[part].float()[:, :, None]).squeeze(2)
        similarity[part], order = products.topk(k, dim=1)
        rows[part] = candidates[part].gather(1, order)
    return Neighbours(similarity, rows)


def _parts(length: int) -> Iterator[slice]:
    for start in range(0, length, QUERIES_AT_A_TIME):
        yield slice(start, start + QUERIES_AT_A_TIME)
