"""Which clusters lie beside each other: the graph of the fully unsupervised protocol (HCL, section 7)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hcl.evaluation.counting import IMAGES_AT_A_TIME, check_ids, counts_per_image
from kernels.scatter import add_at

ANGLES = tuple(math.pi * share for share in (0, 1 / 4, 1 / 2, 3 / 4, 1, 4 / 3, 3 / 2, 7 / 4))
"""The published directions; the sixth is 4/3 pi where 5/4 pi would complete the circle."""

Offset = tuple[int, int]


class CooccurrenceSums(NamedTuple):
    """What the co-occurrence of ids follows from; all of it adds up over images.

    Attributes:
        shares: (ids, ids) float64, sum over images of each id's share among the neighbours of the row's id.
        images: (ids,) int64, images in which the id has any neighbour.
    """

    shares: Tensor
    images: Tensor

    @property
    def matrix(self) -> Tensor:
        """(ids, ids) float64: the mean shares; 0 in the row of an id that never has a neighbour."""
        return self.shares / self.images.clamp(min=1)[:, None]


def cooccurrence_sums(cluster_maps: Tensor, ids: int, distances: Sequence[int] = (1, 2)) -> CooccurrenceSums:
    """How often the ids lie beside each other, image by image, normalised in each image.

    The neighbours of a cell are the cells at every distance in every one of `ANGLES` that have another id.

    Args:
        cluster_maps: (n, R, R) integers from 0 to ids - 1.
        ids: how many ids there are, background included.
        distances: in cells.

    Raises:
        ValueError: an id is out of range, or a distance is not at least 1.
    """
    if not distances or min(distances) < 1:
        raise ValueError(f"distances are {list(distances)}; each must be at least 1, and there must be one")
    check_ids(cluster_maps, ids)
    both_ways, one_way = _split_offsets(offsets(distances))
    shares = torch.zeros(ids * ids, dtype=torch.float64, device=cluster_maps.device)
    images = torch.zeros(ids, dtype=torch.int64, device=cluster_maps.device)
    for maps in cluster_maps.split(IMAGES_AT_A_TIME):
        numbered, present = _number_within_images(maps.long(), ids)
        counts = _pair_counts(numbered, present.shape[1], both_ways)
        counts += counts.mT + _pair_counts(numbered, present.shape[1], one_way)
        counts.diagonal(dim1=1, dim2=2).zero_()
        neighbours = counts.sum(dim=2)
        share = counts / neighbours.clamp(min=1).double()[:, :, None]
        pairs = present[:, :, None] * ids + present[:, None, :]
        # With the same bits on every rank, for all must agree on the graph.
        add_at(shares, pairs.flatten(), share.flatten())
        images.index_add_(0, present.flatten(), (neighbours > 0).long().flatten())
    return CooccurrenceSums(shares.view(ids, ids), images)


def offsets(distances: Sequence[int]) -> list[Offset]:
    """Rows and columns from a cell to each neighbour, rounded to whole cells: some stand there twice."""
    return [
        (round(math.sin(angle) * distance), round(math.cos(angle) * distance))
        for distance in distances
        for angle in ANGLES
    ]


def _split_offsets(all_offsets: list[Offset]) -> tuple[list[Offset], list[Offset]]:
    """One of each pair of opposite offsets (the other's counts are the transpose), and what is left over."""
    left, both_ways = list(all_offsets), []
    for offset in all_offsets:
        opposite = (-offset[0], -offset[1])
        if offset in left and opposite in left:
            left.remove(offset)
            left.remove(opposite)
            both_ways.append(offset)
    return both_ways, left


def _number_within_images(maps: Tensor, ids: int) -> tuple[Tensor, Tensor]:
    """Maps with each image's own ids numbered from 0, and (n, most ids in an image) the ids so numbered.

    An image holds few of all ids, and counts of few fit into the cache. Numbers that an image does not use
    stand for ids that it does not hold.
    """
    there = counts_per_image(maps, ids) > 0
    most = int(there.sum(dim=1).max()) if len(maps) else 0
    present = there.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    numbers = there.cumsum(dim=1) - 1
    return numbers.gather(1, maps.flatten(1)).view_as(maps), present


def _pair_counts(maps: Tensor, ids: int, some_offsets: list[Offset]) -> Tensor:
    """(n, ids, ids) int64: how often a cell of the first id has a neighbour of the second."""
    counts = maps.new_zeros(len(maps), ids * ids)
    for rows, columns in some_offsets:
        pairs = _shifted(maps, -rows, -columns) * ids + _shifted(maps, rows, columns)
        counts += counts_per_image(pairs, ids * ids)
    return counts.unflatten(1, (ids, ids))


def _shifted(maps: Tensor, rows: int, columns: int) -> Tensor:
    """The part of the maps that lies on the maps when they are moved against the offset."""
    height, width = maps.shape[1:]
    return maps[
        :,
        max(rows, 0) : max(height + min(rows, 0), 0),
        max(columns, 0) : max(width + min(columns, 0), 0),
    ]
