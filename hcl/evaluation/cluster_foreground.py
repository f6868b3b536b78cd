"""Cluster-based foreground extraction: a cluster is foreground as a whole or not at all (HCL, section 7).

A single attention map is noisy, but a cluster that lies inside the maps of most images is part of an object.
After Leopart: Ziegler and Asano, "Self-Supervised Learning of Object Parts for Semantic Segmentation", 2022.

All statistics are sums over images, so that the sums of several processes can be added up before use.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hcl.evaluation.counting import IMAGES_AT_A_TIME, check_ids, check_shapes, counts_per_image

STEP = 0.05
"""The published threshold is rounded to a multiple of this value."""


class PrecisionSums(NamedTuple):
    """Sums over images from which the precision of each cluster is computed.

    Attributes:
        shares: (K,) float64, the share of the cluster's cells that lie inside the mask, summed over images.
        images: (K,) int64, number of images in which the cluster appears.
        cells: (K,) int64, number of the cluster's cells in all images.
    """

    shares: Tensor
    images: Tensor
    cells: Tensor

    @property
    def precision(self) -> Tensor:
        """(K,) float64 in [0, 1]: the mean share of each cluster; 0 for one that never appears."""
        return self.shares / self.images.clamp(min=1)


class PrecisionThreshold(NamedTuple):
    """The minimum precision of a foreground cluster, and how it was chosen.

    Attributes:
        value: the lowest precision of a foreground cluster.
        choice: ``published`` or ``otsu``.
        reads_labels: whether the choice used labels; every score that depends on it must say so.
    """

    value: float
    choice: Literal["published", "otsu"]
    reads_labels: bool

    def foreground(self, precision: Tensor) -> Tensor:
        """Return which clusters are foreground, (K,) bool.

        Raises:
            ValueError: no cluster is foreground.
        """
        chosen = precision >= self.value
        if not chosen.any():
            raise ValueError(
                f"no cluster reaches the precision {self.value:.3f}; the highest is "
                f"{float(precision.max()):.3f}: choose the other of --thresholds, or raise --keep_mass"
            )
        return chosen


def precision_sums(cluster_maps: Tensor, masks: Tensor, clusters: int) -> PrecisionSums:
    """Measure how much of each cluster lies inside the attention masks (HCL, section 7, step 2).

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
    """Sum over images the Jaccard index of every foreground that a threshold can produce. Reads labels.

    Args:
        cluster_maps: (n, R, R) integer cluster ids.
        objects: (n, R, R) uint8 on the same device, from `foreground_scores.object_labels`: 1 on objects, 0
            elsewhere, and more than 1 where unlabelled. Unlabelled cells count as objects, as in Leopart's
            program: in VOC they are the borders of objects.
        precision: (K,) precision of each cluster over all images.

    Returns:
        (K,) float64. Entry b is the sum when the b least precise clusters are background and all others are
        foreground. An image without an object adds nothing.

    Raises:
        ValueError: the shapes differ, or a cluster id is out of range.
    """
    order = precision.argsort(stable=True)
    sums = torch.zeros(len(precision), dtype=torch.float64, device=cluster_maps.device)
    for counts in _joint_counts(cluster_maps, objects > 0, len(precision), kinds=2):
        # From the most precise cluster on, the cells of the foreground once each cluster has joined it.
        other, hit = counts[:, order.flip(0)].cumsum(dim=1).unbind(dim=2)
        union = hit[:, -1:] + other
        sums += (hit / union.clamp(min=1).double()).sum(dim=0).flip(0)
    return sums


def published_threshold(precision: Tensor, jaccards: Tensor) -> PrecisionThreshold:
    """Choose the threshold that fits the labels best, as published (HCL, section 7, step 2).

    The candidates are the foregrounds that leave 55 to 75 % of all clusters as background: the b least
    precise ones, with b from floor(0.55 K) to floor(0.75 K) - 1; b = floor(0.55 K) is always among them. The
    candidate with the best mean Jaccard index over the training images is taken; among equals, the smallest
    foreground. The threshold is the precision of its least precise cluster, rounded to the nearest multiple
    of 0.05 below 1.

    Args:
        precision: (K,) precision of each cluster over all training images.
        jaccards: (K,) from `jaccard_sums` over all training images, with the same precision.

    Raises:
        ValueError: no cluster reaches the rounded threshold.
    """
    clusters = len(precision)
    first, end = clusters * 55 // 100, clusters * 75 // 100
    candidates = jaccards[first : max(end, first + 1)]
    best = first + len(candidates) - 1 - int(candidates.flip(0).argmax())
    lowest = float(precision.sort(stable=True).values[best])
    threshold = PrecisionThreshold(min(round(lowest / STEP), 19) * STEP, "published", reads_labels=True)
    threshold.foreground(precision)
    return threshold


def otsu_threshold(sums: PrecisionSums) -> PrecisionThreshold:
    """Choose the threshold that separates the precisions best, without reading labels.

    Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979: of all ways to split the cells by
    the precision of their cluster, take the one with the greatest variance between the two parts. The search
    is exact and needs no histogram: it tries a split after every precision that occurs. The threshold lies
    halfway between the two precisions next to the split.

    Args:
        sums: precision sums over all images.

    Raises:
        ValueError: all clusters have the same precision, so that no threshold separates them.
    """
    precision, order = sums.precision[sums.cells > 0].sort(stable=True)
    if len(precision) == 0 or precision[0] == precision[-1]:
        raise ValueError(
            "every cluster has the same precision, so no threshold separates them: check that there are at "
            "least two clusters, and attention masks with cells inside and outside"
        )
    weights = sums.cells[sums.cells > 0][order].double()
    below, moments = weights.cumsum(dim=0), (weights * precision).cumsum(dim=0)
    above = below[-1] - below
    gap = (moments[-1] - moments) / above.clamp(min=1) - moments / below
    between = below * above * gap.square()
    # A threshold cannot separate clusters of equal precision.
    between = between[:-1].where(precision[:-1] < precision[1:], -1)
    best = int(between.argmax())
    return PrecisionThreshold(float(precision[best : best + 2].mean()), "otsu", reads_labels=False)


def _joint_counts(
    cluster_maps: Tensor, kinds_of_cells: Tensor, clusters: int, kinds: int
) -> Iterator[Tensor]:
    """Count cells by image, cluster and kind, (images, clusters, kinds) int64, some images at a time."""
    check_shapes(cluster_maps, kinds_of_cells, "cluster maps and masks")
    check_ids(cluster_maps, clusters)
    parts = zip(cluster_maps.split(IMAGES_AT_A_TIME), kinds_of_cells.split(IMAGES_AT_A_TIME), strict=True)
    for maps, kind in parts:
        counts = counts_per_image(maps.long() * kinds + kind, clusters * kinds)
        yield counts.unflatten(1, (clusters, kinds))
