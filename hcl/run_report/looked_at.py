"""The trained model's outputs for some images of a data set; all pictures of a page show these images."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.protocol import Frame
from hcl.evaluation.tokens import TokenExtractor
from hcl.progress import progress
from pipelines.labelled_images import EvaluationImages
from pipelines.normalise import colours

SIDE = 224
"""Maximum longer side in pixels of an image on the page."""


class LookedAt(NamedTuple):
    """Images of one data set and the model's outputs for them, on the CPU.

    Attributes:
        dataset: data set of these images only.
        pictures: (n, S, S, 3) uint8, as the model sees them.
        tokens: (n, h·w, E) bfloat16 component tokens.
        attention: (n, heads, h, w) float32, the attention of [CLS] in the last block.
        labels: (n, S, S) uint8, or None.
        grid: (h, w).
    """

    dataset: Dataset
    pictures: np.ndarray
    tokens: Tensor
    attention: Tensor
    labels: Tensor | None
    grid: tuple[int, int]


def look(
    dataset: Dataset, extractor: TokenExtractor, frame: Frame, *, batch_size: int, threads: int
) -> LookedAt:
    """Run the model on images.

    Raises:
        ValueError: patches do not tile the frame, or a label is invalid.
        DecodeError: an image cannot be decoded.
    """
    grid = extractor.grid(frame.size)
    batches = EvaluationImages(
        dataset,
        size=frame.size,
        mode=frame.mode,
        batch_size=batch_size,
        device=extractor.device,
        threads=threads,
    )
    world = World.alone(extractor.device)
    pictures, tokens, attention, labels = [], [], [], []
    with progress(world, f"tokens of {dataset.name}", "image", total=len(dataset)) as bar:
        for batch in batches:
            found = extractor(batch.images)
            pictures.append(colours(batch.images).movedim(1, -1).cpu().numpy())
            tokens.append(found.tokens.to("cpu", torch.bfloat16))
            attention.append(found.attention.cpu())
            labels += [] if batch.labels is None else [batch.labels.cpu()]
            bar.update(len(batch.indices))
    return LookedAt(
        dataset,
        np.concatenate(pictures),
        torch.cat(tokens),
        torch.cat(attention),
        torch.cat(labels) if labels else None,
        grid,
    )
