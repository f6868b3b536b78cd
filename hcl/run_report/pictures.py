"""The pictures of a page: what the model sees in some images, its components, and where it fails."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hcl.evaluation.linear_classifier import refuse_other_channels, refuse_other_classes
from hcl.figures.colours import cluster_colours
from hcl.figures.pictures import coloured, data_uri, heat, lit
from hcl.models.head_files import load_linear_classifier
from hcl.run_report.components import Component, Components, find_components, gallery
from hcl.run_report.looked_at import SIDE, LookedAt
from hcl.run_report.worst import Prediction, WorstImage, of_classifier, of_components, worst_images
from kernels.foreground import foreground_mask

EXAMPLES = 8


class Seen(NamedTuple):
    """An image as the model sees it: name of its file, share of foreground, and pictures as data URIs."""

    name: str
    share: float
    picture: str
    attention: str
    foreground: str
    components: str


class Pictures(NamedTuple):
    """Everything on a page that shows images.

    Attributes:
        data: name of the data set.
        images: number of images that the model has seen.
        size: their side in pixels.
        keep_mass: share of the attention that is foreground.
        clusters: number of components.
        seen: images as the model sees them.
        gallery: components.
        prediction: source of the predictions by which the worst images are found; None without labels.
        worst: the worst images.
    """

    data: str
    images: int
    size: int
    keep_mass: float
    clusters: int
    seen: list[Seen]
    gallery: list[Component]
    prediction: str | None
    worst: list[WorstImage]


def draw_pictures(
    looked_at: LookedAt, *, keep_mass: float, clusters: int, shown: int, classifier: str | None, seed: int
) -> Pictures:
    """Draw the model's outputs for some images.

    Args:
        looked_at: images and outputs.
        keep_mass: share of the attention that is foreground.
        clusters: number of components.
        shown: number of images of each kind, and of components in the gallery.
        classifier: file of a linear classifier; the worst images are found by its predictions instead of
            those of the components.
        seed: seed of k-means.

    Raises:
        ValueError: there are fewer tokens than clusters, or the classifier does not fit tokens or classes.
        FileNotFoundError: the classifier is missing.
    """
    foreground = foreground_mask(looked_at.attention, keep_mass)
    components = find_components(looked_at, clusters, seed)
    prediction, worst = None, []
    if looked_at.labels is not None:
        prediction = _prediction(looked_at, components, looked_at.labels, classifier)
        worst = worst_images(prediction, looked_at, looked_at.labels, shown)
    return Pictures(
        looked_at.dataset.name,
        len(looked_at.dataset),
        looked_at.pictures.shape[1],
        keep_mass,
        clusters,
        [
            _seen(looked_at, components, foreground, index)
            for index in range(min(shown, len(looked_at.dataset)))
        ],
        gallery(looked_at, components, foreground, shown=shown, examples=EXAMPLES),
        prediction.source if prediction else None,
        worst,
    )


def _prediction(
    looked_at: LookedAt, components: Components, labels: Tensor, classifier: str | None
) -> Prediction:
    if classifier is None:
        return of_components(components, looked_at, labels)
    loaded = load_linear_classifier(classifier)
    refuse_other_channels(loaded, looked_at.tokens.shape[2], classifier)
    refuse_other_classes(loaded, looked_at.dataset, classifier)
    return of_classifier(loaded, looked_at, Path(classifier))


def _seen(looked_at: LookedAt, components: Components, foreground: Tensor, index: int) -> Seen:
    pixels, mask = looked_at.pictures[index], foreground[index].numpy()
    ids = components.ids[index].unflatten(0, looked_at.grid).numpy()
    attention = looked_at.attention[index].mean(dim=0).numpy()
    drawn = (pixels, heat(pixels, attention), lit(pixels, mask), coloured(pixels, cluster_colours(ids)))
    return Seen(
        looked_at.dataset.samples[index].image.name,
        float(torch.from_numpy(mask).double().mean()),
        *(data_uri(picture, SIDE) for picture in drawn),
    )
