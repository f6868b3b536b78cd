"""The images that a prediction fails on most."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hcl.data.samples import Dataset
from hcl.evaluation.image_scores import image_class_iou, image_confusions
from hcl.evaluation.linear_classifier import logits_of
from hcl.evaluation.metrics import ClusteringScores
from hcl.evaluation.resolution import nearest
from hcl.figures.colours import as_bytes, as_hex, class_colours
from hcl.figures.pictures import coloured, data_uri
from hcl.run_report.components import Components
from hcl.run_report.looked_at import SIDE, LookedAt


class Prediction(NamedTuple):
    """Predicted classes (n, S, S) uint8 of the report's images, and a sentence on where they come from."""

    classes: Tensor
    source: str


class ClassScore(NamedTuple):
    """A class of an image: name, IoU, colour as in the pictures."""

    name: str
    iou: float
    colour: str


class WorstImage(NamedTuple):
    """An image, its mean IoU and that of each class, and pictures of it as data URIs."""

    name: str
    iou: float
    classes: list[ClassScore]
    picture: str
    label: str
    predicted: str


@torch.no_grad()
def of_classifier(classifier: nn.Conv2d, looked_at: LookedAt, path: Path) -> Prediction:
    """Return the predictions of a linear classifier."""
    size = looked_at.pictures.shape[1]
    classes = [
        logits_of(classifier, tokens[None].float(), looked_at.grid, size).argmax(dim=1).byte()
        for tokens in looked_at.tokens
    ]
    return Prediction(torch.cat(classes), f"The predictions are those of the linear classifier {path}.")


def of_components(components: Components, looked_at: LookedAt, labels: Tensor) -> Prediction:
    """Predict for each cluster the class in which it is most precise. Reads labels (n, S, S)."""
    size, dataset = looked_at.pictures.shape[1], looked_at.dataset
    maps = nearest(components.ids.unflatten(1, looked_at.grid), size)
    metric = ClusteringScores(
        components.clusters, len(dataset.class_names), ignore_index=dataset.ignore_index
    )
    metric.update(maps, labels)
    source = (
        f"The predictions are the {components.clusters} clusters of the gallery, each assigned the class in "
        "which it is most precise on these same images, so they depend on the labels."
    )
    return Prediction(metric.match(metric.confusion)[maps].byte(), source)


def worst_images(prediction: Prediction, looked_at: LookedAt, labels: Tensor, shown: int) -> list[WorstImage]:
    """Return the images with the lowest IoU, the worst first.

    The IoU of an image is the mean over the classes that occur in its labels, from (n, S, S) uint8, or in its
    prediction. Images without a labelled pixel are left out.
    """
    dataset = looked_at.dataset
    confusions = image_confusions(prediction.classes, labels, len(dataset.class_names), dataset.ignore_index)
    class_iou = image_class_iou(confusions)
    means = class_iou.nanmean(dim=1)
    order = means.nan_to_num(torch.inf).argsort(stable=True)[:shown].tolist()
    return [
        _worst_image(index, class_iou[index], prediction, looked_at, labels)
        for index in order
        if not means[index].isnan()
    ]


def _worst_image(
    index: int, class_iou: Tensor, prediction: Prediction, looked_at: LookedAt, labels: Tensor
) -> WorstImage:
    pixels = looked_at.pictures[index]
    label, predicted = (
        data_uri(coloured(pixels, class_colours(ids[index].numpy())), SIDE)
        for ids in (labels, prediction.classes)
    )
    return WorstImage(
        looked_at.dataset.samples[index].image.name,
        float(class_iou.nanmean()),
        _class_scores(class_iou, looked_at.dataset),
        data_uri(pixels, SIDE),
        label,
        predicted,
    )


def _class_scores(class_iou: Tensor, dataset: Dataset) -> list[ClassScore]:
    scores = []
    for number in (~class_iou.isnan()).nonzero().flatten().tolist():
        colour = as_hex(as_bytes(class_colours(np.array(number))))
        scores.append(ClassScore(dataset.class_names[number], float(class_iou[number]), colour))
    return scores
