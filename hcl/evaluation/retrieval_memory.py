"""The memory of dense retrieval: its size, the device that it fits on, and how the ranks fill it in turn."""

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
"""Share of a GPU's free memory that may be taken; the model's tokens and the search need some, too."""

logger = logging.getLogger(__name__)


def empty_memory(size: int, dataset: Dataset, extractor: TokenExtractor, side: int, world: World) -> Memory:
    """Allocate a memory for the tokens of a data set, ``size`` at most.

    Args:
        size: number of tokens that are requested.
        dataset: data set whose tokens the memory will hold.
        extractor: extractor of these tokens.
        side: side of an image in pixels.
        world: the ranks; each has the whole memory.

    Returns:
        Uninitialised tensors on this rank's device; or on the host, with a warning in the log, if they would
        take more than `SHARE` of the GPU memory that is free. The choice does not change the results.

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
    """Return the device that has room for ``needed`` bytes."""
    host, there = torch.device("cpu"), world.device
    if there != host:
        free = free_memory(there)
        if needed <= SHARE * free:
            return there
        if world.is_main:
            logger.warning(
                "the memory takes %.1f GiB, more than half of the %.1f GiB that are free on the GPU: it "
                "stays on the host, where the search is slower; lower --memory_size to keep it on the GPU",
                *(needed / GIB, free / GIB),
            )
    free = free_memory(host)
    if needed > free:
        raise ValueError(
            f"the memory would take {needed / GIB:.1f} GiB on every rank, but only {free / GIB:.1f} GiB are "
            "free: lower --memory_size"
        )
    return host


def remember(
    empty: Memory, store: TokenStore, dataset: Dataset, *, batch_size: int, seed: int, world: World
) -> Memory:
    """Fill the memory with tokens of a training split; it becomes the same on every rank.

    Args:
        empty: memory from `empty_memory`; it is filled in place.
        store: tokens of the split.
        dataset: the split.
        batch_size: images per batch; the ranks take batches in turn.
        seed: seed of the draw of tokens.
        world: the ranks.

    Returns:
        The rows of the memory that were filled: fewer than all if the images have too few labelled tokens.
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
