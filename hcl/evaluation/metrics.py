"""Segmentation scores, all computed from one confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from hcl.evaluation.counting import check_shapes
from hcl.evaluation.matching import MATCHINGS, hungarian, joined

LABELS = 256
"""Number of values of a uint8 label: counting all of them is cheaper than checking each label first."""

SEGMENTATION_SCORES = ("miou", "miou_present", "pixel_accuracy")
CLUSTERING_SCORES = (*SEGMENTATION_SCORES, "published_accuracy")
RETRIEVAL_SCORES = (*SEGMENTATION_SCORES, "matched_miou")


class Scores(NamedTuple):
    """Scores of ``confusion``, a (classes, classes) int64 matrix of pixels, predictions by labels."""

    confusion: Tensor

    @property
    def tp(self) -> Tensor:
        """(classes,) int64: true positives of each class, in pixels."""
        return self.confusion.diagonal()

    @property
    def fp(self) -> Tensor:
        """(classes,) int64: false positives of each class, in pixels."""
        return self.confusion.sum(dim=1) - self.tp

    @property
    def fn(self) -> Tensor:
        """(classes,) int64: false negatives of each class, in pixels."""
        return self.confusion.sum(dim=0) - self.tp

    @property
    def union(self) -> Tensor:
        """(classes,) int64: pixels that are labelled or predicted as the class."""
        return self.tp + self.fp + self.fn

    @property
    def present(self) -> Tensor:
        """(classes,) bool: the class occurs among the labels or the predictions."""
        return self.union > 0

    @property
    def class_iou(self) -> Tensor:
        """(classes,) float64 intersection over union; 0 for a class that never occurs."""
        return self.tp.double() / self.union.clamp(min=1)

    @property
    def miou(self) -> float:
        """Mean IoU over all classes; a class that never occurs counts as 0."""
        return float(self.class_iou.mean())

    @property
    def miou_present(self) -> float:
        """Mean IoU over the classes that occur; 0 if none does."""
        return float(self.class_iou.sum() / self.present.sum().clamp(min=1))

    @property
    def matched_miou(self) -> float:
        """`miou` after matching predicted and labelled classes one to one, by IoU on these very labels."""
        return Scores(joined(self.confusion, hungarian(self.confusion))).miou

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are predicted correctly."""
        return float(self.tp.sum().double() / (self.tp + self.fn).sum().clamp(min=1))

    @property
    def published_accuracy(self) -> float:
        """What the published program calls accuracy: the sum of tp over the sum of tp + fp + fn."""
        return float(self.tp.sum().double() / self.union.sum().clamp(min=1))

    def numbers(self, names: Sequence[str]) -> dict[str, float]:
        """Return the scores of these names, each a single number in [0, 1]."""
        return {name: getattr(self, name) for name in names}


class ConfusionMatrix(Metric):
    """Counts of labelled pixels, clusters (or predicted classes) by classes: the base of the metrics below.

    `compute` sums the state, ``confusion`` (clusters, classes) int64, over the processes.

    Args:
        clusters: number of predicted ids, 0 to clusters - 1.
        classes: number of label classes, 2 to 255.
        ignore_index: the label of pixels that do not count, at least ``classes``.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, clusters: int, classes: int, *, ignore_index: int = 255) -> None:
        super().__init__()
        if clusters < 1 or not 2 <= classes <= 255:
            raise ValueError(f"need at least 1 cluster and 2 to 255 classes, got {clusters} and {classes}")
        self.clusters, self.classes, self.ignore_index = clusters, classes, ignore_index
        self.add_state("confusion", torch.zeros(clusters, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count the pixels of a batch.

        Args:
            predictions: integer ids, any shape.
            labels: uint8 class ids or ``ignore_index``, of the same shape.

        Raises:
            ValueError: the shapes differ, or an id or a label is out of range.
        """
        check_shapes(predictions, labels, "predictions and labels")
        index = predictions.flatten().int() * LABELS + labels.flatten()
        counts = torch.bincount(index, minlength=self.clusters * LABELS)
        if len(counts) > self.clusters * LABELS:
            raise ValueError(
                f"prediction {(len(counts) - 1) // LABELS} is out of range for {self.clusters} clusters"
            )
        counts = counts.view(self.clusters, LABELS)
        self._refuse_unknown(counts.sum(dim=0))
        self.confusion += counts[:, : self.classes]

    def _refuse_unknown(self, pixels: Tensor) -> None:
        unknown = pixels[self.classes :].nonzero().flatten() + self.classes
        unknown = unknown[unknown != self.ignore_index]
        if len(unknown):
            raise ValueError(f"labels {unknown.tolist()} are out of range for {self.classes} classes")


class SegmentationScores(ConfusionMatrix):
    """Scores of predicted classes."""

    def __init__(self, classes: int, *, ignore_index: int = 255) -> None:
        super().__init__(classes, classes, ignore_index=ignore_index)

    def compute(self) -> Scores:
        """The scores of all pixels so far."""
        return Scores(self.confusion)


class ClusteringScores(ConfusionMatrix):
    """Scores of clusters after each was matched with a class.

    Args:
        clusters: the number of cluster ids.
        classes: the number of class ids.
        matching: ``precision`` (many clusters to one class) or ``hungarian`` (one to one by IoU; the
            remaining clusters get class 0).
        ignore_index: the label of pixels that do not count.
    """

    def __init__(
        self,
        clusters: int,
        classes: int,
        *,
        matching: Literal["precision", "hungarian"] = "precision",
        ignore_index: int = 255,
    ) -> None:
        super().__init__(clusters, classes, ignore_index=ignore_index)
        self.match = MATCHINGS[matching]

    def compute(self) -> Scores:
        """The scores of all pixels so far."""
        return Scores(joined(self.confusion, self.match(self.confusion)))


def over_seeds(numbers: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Return mean and standard deviation of every number over the runs of one protocol.

    Args:
        numbers: numbers by name, for each seed.

    Returns:
        JSON-ready: ``mean`` and ``std`` (of the population) by name, ``seeds`` with the numbers of each seed.
    """
    rows = list(numbers.values())
    table = torch.tensor([list(row.values()) for row in rows], dtype=torch.float64)
    return {
        "mean": dict(zip(rows[0], table.mean(dim=0).tolist(), strict=True)),
        "std": dict(zip(rows[0], table.std(dim=0, correction=0).tolist(), strict=True)),
        "seeds": [{"seed": seed, **row} for seed, row in numbers.items()],
    }


def summary(
    scores: Mapping[int, Scores], class_names: Sequence[str], names: Sequence[str] = SEGMENTATION_SCORES
) -> dict[str, Any]:
    """Summarise the scores over the runs of one protocol, and the IoU of each class.

    Args:
        scores: scores of each seed.
        class_names: names of the classes.
        names: names of the scores to include.

    Returns:
        The result of `over_seeds` for the scores; ``class_iou`` by class name, averaged over the seeds;
        ``absent_classes``, which occur neither in labels nor in predictions; and ``confusion``, pixels by
        predicted and labelled class, summed over the seeds.
    """
    runs = list(scores.values())
    class_iou = torch.stack([run.class_iou for run in runs]).mean(dim=0)
    present = torch.stack([run.present for run in runs]).any(dim=0)
    return {
        **over_seeds({seed: run.numbers(names) for seed, run in scores.items()}),
        "class_iou": dict(zip(class_names, class_iou.tolist(), strict=True)),
        "absent_classes": [name for name, is_there in zip(class_names, present, strict=True) if not is_there],
        "confusion": torch.stack([run.confusion for run in runs]).sum(dim=0).tolist(),
    }
