"""The memory of dense retrieval: how large it becomes, where it fits, and its tokens, each rank's in turn."""

import logging

import numpy as np
import torch

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.label_retrieval import Memory, unit_length
from hcl.evaluation.token_labels import memory_shares, sample_tokens, token_label_distributions
from hcl.evaluation.token_store import TokenStore
from hcl.evaluation.tokens import TokenExtractor
from hcl.memory import GIB, free_memory
from hcl.progress import progress

TOKENS = torch.bfloat16
LABELS = torch.float32
SHARE = 0.5
"""Of a GPU's free memory; the model's tokens and the search need some, too."""

logger = logging.getLogger(__name__)


def empty_memory(size: int, dataset: Dataset, extractor: TokenExtractor, side: int, world: World) -> Memory:
    """Room for the tokens that a memory of a data set may hold at most.

    Args:
        size: tokens that are asked for.
        dataset: whose tokens will be remembered.
        extractor: of these.
        side: of an image in pixels.
        world: the ranks; each has the whole memory.

    Returns:
        Tensors without values: on this rank's device, or, said in the log, on the host where they would
        take more than `SHARE` of what is free there. Neither makes a difference to what is found.

    Raises:
        ValueError: there is not enough memory on the host either.
    """
    rows, cells = extractor.grid(side)
    tokens = min(size, len(dataset) * rows * cells)
    classes = len(dataset.class_names)
    needed = tokens * (extractor.channels * TOKENS.itemsize + classes * LABELS.itemsize)
    home = _home(needed, world)
    return Memory(
        torch.empty(tokens, extractor.channels, dtype=TOKENS, device=home),
        torch.empty(tokens, classes, dtype=LABELS, device=home),
    )


def _home(needed: int, world: World) -> torch.device:
    """Where so many bytes are to lie."""
    host, there = torch.device("cpu"), world.device
    if there != host:
        free = free_memory(there)
        if needed <= SHARE * free:
            return there
        if world.is_main:
            logger.warning(
                "the memory takes %.1f GiB, and %.1f GiB of the GPU are free: it stays on the host, from "
                "where it is searched more slowly; a smaller --memory_size would fit",
                *(needed / GIB, free / GIB),
            )
    free = free_memory(host)
    if needed > free:
        raise ValueError(
            f"the memory would take {needed / GIB:.1f} GiB on every rank, and {free / GIB:.1f} GiB are free: "
            "lower --memory_size"
        )
    return host


def remember(
    empty: Memory, store: TokenStore, dataset: Dataset, *, batch_size: int, seed: int, world: World
) -> Memory:
    """The memory of a training split, the same on every rank.

    Args:
        empty: from `empty_memory`; it is filled.
        store: the split's tokens.
        dataset: the split.
        batch_size: images at a time, which the ranks take in turns.
        seed: of the draw of tokens.
        world: the ranks.

    Returns:
        As many of its rows as images have labelled tokens to give.
    """
    shares = memory_shares(len(empty.tokens), len(store))
    batches = np.split(np.arange(len(store)), range(batch_size, len(store), batch_size))
    filled = 0
    with progress(world, "memory", "image", total=len(store)) as bar:
        for start in range(0, len(batches), world.size):
            turn = batches[start : start + world.size]
            mine = turn[world.rank] if world.rank < len(turn) else turn[0][:0]
            distributions, labelled = token_label_distributions(
                store.labels[mine], store.grid, len(dataset.class_names), dataset.ignore_index
            )
            kept = sample_tokens(distributions, labelled, mine, shares, seed=seed)
            tokens = world.all_gather_rows(unit_length(store.tokens[mine][kept], TOKENS).to(world.device))
            rows = slice(filled, filled + len(tokens))
            empty.tokens[rows] = tokens
            empty.labels[rows] = world.all_gather_rows(distributions[kept].to(world.device))
            filled = rows.stop
            bar.update(sum(map(len, turn)))
    return Memory(empty.tokens[:filled], empty.labels[:filled])
