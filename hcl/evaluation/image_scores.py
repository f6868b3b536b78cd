"""Scores of single images, which show where a prediction fails."""

import torch
from torch import Tensor

from hcl.evaluation.counting import IMAGES_AT_A_TIME, check_ids, check_shapes, counts_per_image


def image_confusions(predictions: Tensor, labels: Tensor, classes: int, ignore_index: int = 255) -> Tensor:
    """Return the confusion matrix of every image: (n, classes, classes) int64 pixels, predictions by labels.

    Args:
        predictions: (n, H, W) integer class ids.
        labels: (n, H, W) uint8 class ids, or ``ignore_index`` where a pixel does not count.
        classes: number of classes.
        ignore_index: label of pixels that do not count, at least ``classes``.

    Raises:
        ValueError: the shapes differ, or a prediction or label is not a class.
    """
    check_shapes(predictions, labels, "predictions and labels")
    check_ids(predictions, classes)
    check_ids(labels[labels != ignore_index], classes)
    values = classes + 1
    parts = zip(predictions.split(IMAGES_AT_A_TIME), labels.split(IMAGES_AT_A_TIME), strict=True)
    counts = [
        counts_per_image(predicted.long() * values + labelled.long().clamp(max=classes), classes * values)
        for predicted, labelled in parts
    ]
    return torch.cat(counts).view(-1, classes, values)[..., :classes]


def image_class_iou(confusions: Tensor) -> Tensor:
    """Return the IoU of each class in each image, (n, classes) float64, from (n, classes, classes) pixels.

    It is NaN where a class occurs neither among an image's labels nor among its predictions.
    """
    hit = confusions.diagonal(dim1=1, dim2=2)
    union = confusions.sum(dim=1) + confusions.sum(dim=2) - hit
    return (hit.double() / union).where(union > 0, torch.nan)
