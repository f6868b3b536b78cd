"""Labels of tokens: the classes of a linear classifier, or a small number of clusters."""

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
"""Number of labels that a map with 8 bits per pixel can hold."""

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
    """A set of labels and how tokens are scored for them.

    Attributes:
        scores: function from the parts of a photograph to scores (labels, h, w); a greater score means a more
            likely label, and the softmax of the scores is a probability.
        names: names of the labels.
        colours: (labels, 3) uint8, the same in every run.
        spoken: whether the names mean something to a reader.
    """

    scores: Callable[[Parts], Tensor]
    names: tuple[str, ...]
    colours: np.ndarray
    spoken: bool


def classes(segmenter: Segmenter, classifier: str, names: str | None) -> Labels:
    """Return the classes of a linear classifier, a published one or one from ``linear-probe``, as labels.

    Args:
        segmenter: model on whose tokens the classifier was trained.
        classifier: file of the classifier.
        names: names of the classes: a key of `CLASS_NAMES`, or a text file with one name per line; None for
            those of the data that the head was trained on.

    Raises:
        FileNotFoundError: the classifier or the file of names is missing.
        ValueError: the classifier is for other tokens, the numbers of names and classes differ, or there are
            more than `MOST` classes.
    """
    layer = load_linear_classifier(classifier)
    refuse_other_channels(layer, segmenter.extractor.channels, classifier)
    called = _class_names(segmenter, names)
    count = layer.out_channels
    if count > MOST:
        raise ValueError(f"{classifier} has {count} classes; a map can hold at most {MOST}")
    if len(called) != count:
        unnamed = "the head was trained on images without labels, so there are no names for them"
        known = f"{names or 'the training data'} has {len(called)} names" if called or names else unnamed
        raise ValueError(
            f"{classifier} has {count} classes, but {known}: set --class_names to one of "
            f"{', '.join(CLASS_NAMES)}, or to a text file with one name per line"
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
    """Return the checkpoint's clusters as labels, similar ones of both banks merged until ``count`` are left.

    A token's score for a group is the logarithm of the probability that the loss gives to the group's
    centroids: the softmax of the cosines divided by the temperature (HCL, section 5), here over both banks,
    because an object that the attention misses is still the same object. Ids depend only on the checkpoint
    and ``count``.

    Raises:
        ValueError: the checkpoint has no clusters, or ``count`` is out of range.
    """
    if segmenter.banks is None:
        raise ValueError(
            "this checkpoint holds no clusters (centroids_foreground, centroids_background), and heads in "
            "the format of Hugging Face's Hub never do: give a --classifier, or a checkpoint with clusters"
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
