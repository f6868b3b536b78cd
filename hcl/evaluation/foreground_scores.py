"""How well a foreground map finds "any object class" (HCL, section 7, unsupervised foreground extraction)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.data.samples import Dataset
from hcl.evaluation.counting import counts_per_image
from hcl.evaluation.metrics import ConfusionMatrix

UNLABELLED = 2


def require_objects(dataset: Dataset) -> None:
    """Check that the classes of a data set separate objects from the rest.

    Raises:
        ValueError: no class of the data set is an object, or every class is: if nothing else is labelled, a
            map that calls everything foreground scores like a perfect one.
    """
    classes, objects = len(dataset.class_names), dataset.object_classes
    if not objects or len(objects) == classes:
        raise ValueError(
            f"{'every' if objects else 'no'} class of {dataset.name} is an object, so there is nothing to "
            "compare a foreground map with: use voc, scenes, a folder with masks, or coco with all classes"
        )


def object_labels(labels: Tensor, dataset: Dataset) -> Tensor:
    """Map class ids (any shape, uint8) to 1 on objects, 0 elsewhere and 2 where unlabelled, uint8.

    Raises:
        ValueError: as `require_objects`.
    """
    require_objects(dataset)
    table = np.full(256, UNLABELLED, np.uint8)
    table[: len(dataset.class_names)] = 0
    table[list(dataset.object_classes)] = 1
    return torch.from_numpy(table).to(labels.device)[labels.long()]


class ForegroundResult(NamedTuple):
    """Jaccard indices of a foreground map, each in [0, 1].

    Attributes:
        jaccard: over all labelled pixels together.
        image_jaccard: mean over the images that have any foreground, labelled or predicted.
        leopart_jaccard: like image_jaccard, but unlabelled pixels count as objects, as in Leopart's program;
            on VOC these are the borders of the objects.
    """

    jaccard: float
    image_jaccard: float
    leopart_jaccard: float


class ForegroundScores(ConfusionMatrix):
    """Jaccard index of foreground maps.

    The state consists of the 2 x 2 ``confusion`` of ConfusionMatrix, maps by labels, and of sums over images;
    `compute` sums all of it over the processes.
    """

    image_sums: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__(2, 2, ignore_index=UNLABELLED)
        self.add_state("image_sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: (B, R, R) bool, true on the foreground.
            labels: (B, R, R) uint8, from `object_labels`.

        Raises:
            ValueError: the shapes differ, or a value is out of range.
        """
        super().update(predictions, labels)
        counts = counts_per_image(predictions.long() * 3 + labels, 6).unflatten(1, (2, 3))
        unlabelled_is_object = torch.stack([counts[..., 0], counts[..., 1] + counts[..., UNLABELLED]], dim=2)
        for way, matrix in enumerate((counts, unlabelled_is_object)):
            union = matrix[:, 1, 0] + matrix[:, :, 1].sum(dim=1)
            self.image_sums[way] += (matrix[:, 1, 1] / union.clamp(min=1).double()).sum()
            self.images[way] += (union > 0).sum()

    def compute(self) -> ForegroundResult:
        """Return the indices over all images so far; 0 if nothing was foreground."""
        hit = self.confusion[1, 1]
        union = self.confusion.sum() - self.confusion[0, 0]
        means = self.image_sums / self.images.clamp(min=1)
        return ForegroundResult(float(hit.double() / union.clamp(min=1)), *means.tolist())
