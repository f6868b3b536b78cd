"""Dense nearest-neighbour retrieval as a protocol (Hummingbird; see `label_retrieval` for its settings)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hcl.bounds import require_above_zero, require_at_least
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.label_retrieval import Memory, classes_of_pixels, retrieve
from hcl.evaluation.metrics import RETRIEVAL_SCORES, Scores, SegmentationScores, summary
from hcl.evaluation.nearest_tokens import require_neighbours
from hcl.evaluation.protocol import ProtocolConfig, facts, images_of, open_extractor, open_two_splits
from hcl.evaluation.retrieval_memory import empty_memory, remember
from hcl.evaluation.token_store import TokenStore, stored_tokens
from hcl.progress import progress

TRAIN_SPLITS = {
    "voc": "trainaug",
    "coco": "Coco164kFull_Stuff_Coarse",
    "scenes": "train",
    "folder": "train",
}


@dataclass(kw_only=True)
class RetrievalConfig(ProtocolConfig):
    """Dense nearest-neighbour retrieval: tokens take the labels of the nearest labelled ones.

    Args:
        train_split: split whose tokens form the memory; by default trainaug for voc, the 49,629 images of
            Coco164kFull_Stuff_Coarse for coco, train for others.
        memory_size: number of tokens in the memory, taken evenly from all images; if there are fewer, all of
            them. They stay on the host if the GPU has no room for them.
        neighbours: number of neighbours, k.
        temperature: temperature of the softmax over the neighbours' similarities.
    """

    train_split: str | None = None
    memory_size: int = 10_240_000
    neighbours: int = 30
    temperature: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "memory_size", "neighbours")
        require_above_zero(self, "temperature")
        require_neighbours(self.neighbours, self.memory_size)

    @property
    def training_split(self) -> str:
        """The split whose tokens form the memory."""
        return self.train_split or TRAIN_SPLITS[self.data.kind]


def run(config: RetrievalConfig, world: World) -> dict[str, Any]:
    """Score the labels that the configuration's tokens retrieve.

    Returns:
        The input of `hcl.evaluation.report`, with one entry under ``results``.

    Raises:
        ValueError: the memory holds fewer tokens than neighbours or does not fit into the machine's memory,
            or a setting, file or label is invalid.
        FileNotFoundError: data or weights are missing.
    """
    train, val = open_two_splits(config.data, config.training_split, world)
    extractor = open_extractor(config, world)
    empty = empty_memory(config.memory_size, train, extractor, config.frame.size, world)
    require_neighbours(config.neighbours, len(empty.tokens))
    with stored_tokens(config, train, extractor, world) as store:
        memory = remember(empty, store, train, batch_size=config.batch_size, seed=config.seed, world=world)
    with stored_tokens(config, val, extractor, world) as store:
        scores = score(store, memory, val, config, world)
    described = facts(
        config,
        val,
        extractor,
        label_resolution=config.frame.size,
        labels_used_for=f"the memory, on {train.name}; the matched mIoU, on the scored images",
    )
    name = f"retrieval, k = {config.neighbours}"
    return {
        **described,
        "training_data": images_of(train),
        "memory_tokens": len(memory.tokens),
        "results": [{"name": name, **summary({config.seed: scores}, val.class_names, RETRIEVAL_SCORES)}],
    }


def score(
    store: TokenStore, memory: Memory, dataset: Dataset, config: RetrievalConfig, world: World
) -> Scores:
    """Score all images; each rank retrieves for its share of them."""
    metric = SegmentationScores(len(dataset.class_names), ignore_index=dataset.ignore_index)
    metric.to(world.device)
    mine = np.arange(len(store))[world.slice(len(store))]
    with progress(world, "retrieve", "image", total=len(mine)) as bar:
        for images in _batches(mine, config.batch_size):
            queries = store.tokens[images].to(world.device)
            found = retrieve(
                queries.flatten(0, 1),
                memory,
                neighbours=config.neighbours,
                temperature=config.temperature,
            ).unflatten(0, queries.shape[:2])
            classes = classes_of_pixels(found, store.grid, store.labels.shape[-1])
            metric.update(classes, store.labels[images].to(world.device))
            bar.update(len(images))
    return metric.compute()


def _batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    return [images[start : start + size] for start in range(0, len(images), size)]
