"""Cluster-based foreground extraction: a cluster is foreground as a whole or not at all (HCL, section 7).

Attention maps are noisy one by one; a cluster that lies inside them in most images is part of an object.
After Leopart: Ziegler and Asano, "Self-Supervised Learning of Object Parts for Semantic Segmentation", 2022.

Sums are taken over images, so that those of several processes may be added up before they are used.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hcl.evaluation.counting import IMAGES_AT_A_TIME, check_ids, check_shapes, counts_per_image

STEP = 0.05
"""The published threshold is rounded to a multiple of it."""


class PrecisionSums(NamedTuple):
    """What the precision of each cluster follows from; all of it adds up over images.

    Attributes:
        shares: (K,) float64, sum over the images with the cluster of the share of its cells inside the mask.
        images: (K,) int64, images in which the cluster appears.
        cells: (K,) int64, its cells in all images.
    """

    shares: Tensor
    images: Tensor
    cells: Tensor

    @property
    def precision(self) -> Tensor:
        """(K,) float64 in [0, 1]: the mean share of each cluster; 0 for one that never appears."""
        return self.shares / self.images.clamp(min=1)


class PrecisionThreshold(NamedTuple):
    """From which precision on a cluster is foreground, and how that was chosen.

    Attributes:
        value: the lowest precision of a foreground cluster.
        choice: ``published`` or ``otsu``.
        reads_labels: whether labels had a part in the choice, which must be said beside every number that
            rests on it.
    """

    value: float
    choice: Literal["published", "otsu"]
    reads_labels: bool

    def foreground(self, precision: Tensor) -> Tensor:
        """Which clusters are foreground, (K,) bool.

        Raises:
            ValueError: none of them is.
        """
        chosen = precision >= self.value
        if not chosen.any():
            raise ValueError(
                f"no cluster reaches the precision {self.value:.3f}; the highest is "
                f"{float(precision.max()):.3f}: choose the other threshold, or keep more of the attention"
            )
        return chosen


def precision_sums(cluster_maps: Tensor, masks: Tensor, clusters: int) -> PrecisionSums:
    """How far each cluster lies inside the attention masks (HCL, section 7, step 2).

    Args:
        cluster_maps: (n, R, R) integer cluster ids.
        masks: (n, R, R) bool, true inside the attention map, on the same device.
        clusters: K.

    Raises:
        ValueError: the shapes differ, or a cluster id is out of range.
    """
    shares = torch.zeros(clusters, dtype=torch.float64, device=cluster_maps.device)
    images, cells = torch.zeros(2, clusters, dtype=torch.int64, device=cluster_maps.device)
    for counts in _joint_counts(cluster_maps, masks.bool(), clusters, kinds=2):
        total = counts.sum(dim=2)
        shares += (counts[..., 1] / total.clamp(min=1).double()).sum(dim=0)
        images += (total > 0).sum(dim=0)
        cells += total.sum(dim=0)
    return PrecisionSums(shares, images, cells)


def jaccard_sums(cluster_maps: Tensor, objects: Tensor, precision: Tensor) -> Tensor:
    """The Jaccard index of every foreground that a threshold can make, summed over images. Reads labels.

    Args:
        cluster_maps: (n, R, R) integer cluster ids.
        objects: (n, R, R) uint8 on the same device, as `foreground_scores.object_labels` gives them: 1 on
            objects, 0 elsewhere, and above where unlabelled. Unlabelled cells do not count.
        precision: (K,) of the clusters over all images.

    Returns:
        (K,) float64. Entry b is the sum where the b least precise clusters are background and all others
        foreground. An image without an object adds nothing.

    Raises:
        ValueError: the shapes differ, or a cluster id is out of range.
    """
    order = precision.argsort(stable=True)
    sums = torch.zeros(len(precision), dtype=torch.float64, device=cluster_maps.device)
    for counts in _joint_counts(cluster_maps, objects.clamp(max=2), len(precision), kinds=3):
        # From the most precise cluster on: what the foreground holds once this cluster has joined it.
        other, hit, _ = counts[:, order.flip(0)].cumsum(dim=1).unbind(dim=2)
        union = hit[:, -1:] + other
        sums += (hit / union.clamp(min=1).double()).sum(dim=0).flip(0)
    return sums


def published_threshold(precision: Tensor, jaccards: Tensor) -> PrecisionThreshold:
    """The threshold that serves the labels best, as published (HCL, section 7, step 2).

    Of the foregrounds that leave 55 to 75 % of all clusters as background (floor(0.55 K) to floor(0.75 K) of
    them, the least precise first), the one of the best Jaccard index, a mean over the training images, is
    taken; among equals the smallest. The precision of its least precise cluster, rounded to the nearest
    multiple of 0.05 below 1, is the threshold.

    Args:
        precision: (K,) of the clusters over all training images.
        jaccards: (K,) from `jaccard_sums` over all training images and the same precision.

    Raises:
        ValueError: rounding left no cluster above the threshold.
    """
    clusters = len(precision)
    first, last = clusters * 55 // 100, clusters * 75 // 100
    candidates = jaccards[first : last + 1]
    best = last - int(candidates.flip(0).argmax())
    lowest = float(precision.sort(stable=True).values[best])
    threshold = PrecisionThreshold(min(round(lowest / STEP), 19) * STEP, "published", reads_labels=True)
    threshold.foreground(precision)
    return threshold


def otsu_threshold(sums: PrecisionSums) -> PrecisionThreshold:
    """The threshold that parts the precisions best, without a look at any label.

    Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979: of all ways to divide the cells by
    the precision of their cluster, the one with the greatest variance between the two parts. Exact, without
    a histogram: every precision may be where the parts meet. The threshold lies halfway between them.

    Args:
        sums: over all images.

    Raises:
        ValueError: all clusters have the same precision, so that nothing can be parted.
    """
    precision, order = sums.precision[sums.cells > 0].sort(stable=True)
    if len(precision) == 0 or precision[0] == precision[-1]:
        raise ValueError(
            "every cluster has the same precision, so that no threshold parts them: are there at least two "
            "clusters, and attention masks with cells inside and outside?"
        )
    weights = sums.cells[sums.cells > 0][order].double()
    below, moments = weights.cumsum(dim=0), (weights * precision).cumsum(dim=0)
    above = below[-1] - below
    gap = (moments[-1] - moments) / above.clamp(min=1) - moments / below
    between = below * above * gap.square()
    # A threshold cannot part clusters of equal precision.
    between = between[:-1].where(precision[:-1] < precision[1:], -1)
    best = int(between.argmax())
    return PrecisionThreshold(float(precision[best : best + 2].mean()), "otsu", reads_labels=False)


def _joint_counts(
    cluster_maps: Tensor, kinds_of_cells: Tensor, clusters: int, kinds: int
) -> Iterator[Tensor]:
    """Cells of each image by cluster and kind, (images, clusters, kinds) int64, some images at a time."""
    check_shapes(cluster_maps, kinds_of_cells, "cluster maps and masks")
    check_ids(cluster_maps, clusters)
    parts = zip(cluster_maps.split(IMAGES_AT_A_TIME), kinds_of_cells.split(IMAGES_AT_A_TIME), strict=True)
    for maps, kind in parts:
        counts = counts_per_image(maps.long() * kinds + kind, clusters * kinds)
        yield counts.unflatten(1, (clusters, kinds))
