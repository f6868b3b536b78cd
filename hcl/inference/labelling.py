"""What a token is called: a class of a linear classifier, or one of few clusters."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hcl.data import coco, scenes, voc
from hcl.evaluation.linear_classifier import refuse_other_channels
from hcl.figures.colours import as_bytes, class_colours, cluster_colours
from hcl.inference.segmenter import Parts, Segmenter
from hcl.inference.ward import groups_of, ward_tree
from hcl.models.head_files import load_linear_classifier

MOST = 256
"""Labels that a map of 8 bits a pixel can hold."""

CLASS_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "voc": voc.CLASS_NAMES,
        "coco": coco.class_names_of("all"),
        "coco-things": coco.class_names_of("things"),
        "coco-stuff": coco.class_names_of("stuff"),
        "scenes": scenes.CLASS_NAMES,
    }
)


class Labels(NamedTuple):
    """What there is to tell apart.

    Attributes:
        scores: the parts of a photograph to scores (labels, h, w), the greater the likelier; their softmax is
            a probability.
        names: of the labels.
        colours: (labels, 3) uint8, the same in every run.
        spoken: whether the names mean something to a reader.
    """

    scores: Callable[[Parts], Tensor]
    names: tuple[str, ...]
    colours: np.ndarray
    spoken: bool


def classes(segmenter: Segmenter, classifier: str, names: str | None) -> Labels:
    """The classes of a linear classifier, as ``linear-probe`` leaves it or as published.

    Args:
        segmenter: whose tokens it was trained on.
        classifier: file with it.
        names: of the classes: one of `CLASS_NAMES`, or a text file with a name a line; None for those of the
            data that the head was trained on.

    Raises:
        FileNotFoundError: the classifier or the file of names is missing.
        ValueError: the classifier is for other tokens, or there are not as many names as classes.
    """
    layer = load_linear_classifier(classifier)
    refuse_other_channels(layer, segmenter.extractor.channels, classifier)
    called = _class_names(segmenter, names)
    count = layer.out_channels
    if len(called) != count or count > MOST:
        unnamed = "the head was trained on images without labels, which name none"
        known = f"{names or 'the training data'} names {len(called)}" if called or names else unnamed
        raise ValueError(
            f"{classifier} tells {count} classes apart, but {known}: choose --class_names among "
            f"{', '.join(CLASS_NAMES)}, or a text file with a name a line"
        )
    layer.to(segmenter.device).requires_grad_(False)

    def scores(parts: Parts) -> Tensor:
        return layer(parts.tokens.permute(2, 0, 1))

    return Labels(scores, called, as_bytes(class_colours(np.arange(count))), spoken=True)


def _class_names(segmenter: Segmenter, names: str | None) -> tuple[str, ...]:
    data = segmenter.model.data
    if names is None and data is not None:
        names = data.kind if data.classes == "all" else f"{data.kind}-{data.classes}"
    if names is None or names == "folder":
        return ()
    if names in CLASS_NAMES:
        return CLASS_NAMES[names]
    path = Path(names).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"class_names is {names!r}, which is neither a file nor one of {', '.join(CLASS_NAMES)}"
        )
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def clusters(segmenter: Segmenter, count: int) -> Labels:
    """The checkpoint's clusters, the like ones of both banks put together until there are ``count``.

    A token's score for a group is the logarithm of the probability that the loss gives to the group's
    centroids: the softmax of the cosines over the temperature (HCL, section 5), here over both banks, because
    an object that the attention misses is still the same object. Ids depend on the checkpoint and ``count``
    alone.

    Raises:
        ValueError: the checkpoint has no clusters, or not so many.
    """
    if segmenter.banks is None:
        raise ValueError(
            "this checkpoint holds no clusters (centroids_foreground, centroids_background), nor does a head "
            "in the form of Hugging Face's Hub: give a --classifier, or a checkpoint that has them"
        )
    centroids = F.normalize(torch.cat(segmenter.banks), dim=1)
    if not 2 <= count <= min(MOST, len(centroids)):
        raise ValueError(
            f"clusters is {count}; it must lie between 2 and {min(MOST, len(centroids))} "
            f"({len(centroids)} in the checkpoint, at most {MOST} in a map)"
        )
    group = groups_of(ward_tree(centroids), count).to(segmenter.device)
    temperature = segmenter.model.temperature

    def scores(parts: Parts) -> Tensor:
        likely = (parts.projections @ centroids.T / temperature).softmax(dim=-1)
        groups = likely.new_zeros((*likely.shape[:2], count)).index_add_(2, group, likely)
        return groups.clamp_min(1e-6).log().permute(2, 0, 1)

    names = tuple(f"cluster {number}" for number in range(count))
    return Labels(scores, names, as_bytes(cluster_colours(np.arange(count))), spoken=False)
