"""The scores of a linear classifier on stored tokens, without and with a dense CRF (HCL, section 7)."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.crf import CRFConfig, refine_batches
from hcl.evaluation.framed_images import framed_images
from hcl.evaluation.linear_classifier import logits_of
from hcl.evaluation.metrics import SegmentationScores, summary
from hcl.evaluation.protocol import ProtocolConfig
from hcl.evaluation.token_store import TokenStore
from hcl.progress import progress
from pipelines.labelled_images import LabelledBatch
from pipelines.normalise import colours


class Predicted(NamedTuple):
    """Scores (B, classes, S, S) of a batch of images, labels (B, S, S) uint8 and indices in the data set.

    Scores are logits, or the marginals that a CRF computes from them.
    """

    scores: Tensor
    labels: Tensor
    indices: np.ndarray


@torch.no_grad()
def score(
    classifier: nn.Conv2d,
    store: TokenStore,
    dataset: Dataset,
    config: ProtocolConfig,
    crf: CRFConfig | None,
    world: World,
) -> list[dict[str, Any]]:
    """Return the entries of ``results``: scores of the predictions and, with a CRF, of the refined ones.

    Each rank predicts its share of the images.
    """
    names = ["linear classifier", *(["linear classifier, CRF"] if crf else [])]
    metrics = [_metric(dataset, world) for _ in names]
    mine = np.arange(len(store))[world.slice(len(store))]
    scored = _scored(predictions(classifier, store, mine, config.batch_size, world), metrics[0])
    if crf:
        images = framed_images(dataset, config, mine, world)
        scored = _scored(_refined(scored, images, crf), metrics[1])
    with progress(world, "score", "image", total=len(mine)) as bar:
        for predicted in scored:
            bar.update(len(predicted.indices))
    return [
        {"name": name, **summary({config.seed: metric.compute()}, dataset.class_names)}
        for name, metric in zip(names, metrics, strict=True)
    ]


def predictions(
    classifier: nn.Conv2d, store: TokenStore, indices: np.ndarray, batch_size: int, world: World
) -> Iterator[Predicted]:
    """Predict images batch by batch, on this rank's device.

    Args:
        classifier: 1x1 convolution from the store's channels to classes.
        store: tokens and labels of the images.
        indices: (n,) indices of the images in the store.
        batch_size: images per batch.
        world: the ranks; this rank's device computes.

    Yields:
        Scores that are logits (B, classes, S, S) float32, at the size S of the labels; labels (B, S, S)
        uint8; indices (B,).
    """
    size = store.labels.shape[-1]
    for start in range(0, len(indices), batch_size):
        rows = indices[start : start + batch_size]
        tokens = store.tokens[rows].to(world.device).float()
        logits = logits_of(classifier, tokens, store.grid, size)
        yield Predicted(logits, store.labels[rows].to(world.device), rows)


def _scored(batches: Iterator[Predicted], metric: SegmentationScores) -> Iterator[Predicted]:
    for predicted in batches:
        metric.update(predicted.scores.argmax(dim=1), predicted.labels)
        yield predicted


def _refined(
    batches: Iterator[Predicted], images: Iterable[LabelledBatch], crf: CRFConfig
) -> Iterator[Predicted]:
    """Replace the scores by the CRF's marginals; ``images`` holds the images of the same batches."""
    with_pictures = (
        ((predicted.labels, predicted.indices), predicted.scores, colours(labelled.images))
        for predicted, labelled in zip(batches, images, strict=True)
    )
    for (labels, indices), marginals in refine_batches(with_pictures, crf):
        yield Predicted(marginals, labels, indices)


def _metric(dataset: Dataset, world: World) -> SegmentationScores:
    metric = SegmentationScores(len(dataset.class_names), ignore_index=dataset.ignore_index)
    return metric.to(world.device)
