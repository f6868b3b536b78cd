"""Which clusters lie next to each other: the graph of the fully unsupervised protocol (HCL, section 7)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hcl.evaluation.counting import IMAGES_AT_A_TIME, check_ids, counts_per_image
from kernels.scatter import add_at

ANGLES = tuple(math.pi * share for share in (0, 1 / 4, 1 / 2, 3 / 4, 1, 4 / 3, 3 / 2, 7 / 4))
"""The published directions; the sixth is 4/3 pi, although 5/4 pi would complete the circle."""

Offset = tuple[int, int]


class CooccurrenceSums(NamedTuple):
    """Sums over images from which the co-occurrence of ids is computed.

    Attributes:
        shares: (ids, ids) float64, the column id's share of the neighbours of the row id, summed over images.
        images: (ids,) int64, number of images in which the id has any neighbour.
    """

    shares: Tensor
    images: Tensor

    @property
    def matrix(self) -> Tensor:
        """(ids, ids) float64: the mean shares; 0 in the row of an id that never has a neighbour."""
        return self.shares / self.images.clamp(min=1)[:, None]


def cooccurrence_sums(cluster_maps: Tensor, ids: int, distances: Sequence[int] = (1, 2)) -> CooccurrenceSums:
    """Count how often ids lie next to each other, normalised within each image.

    The neighbours of a cell are the cells with another id, at each of the distances in each of the `ANGLES`.

    Args:
        cluster_maps: (n, R, R) integers from 0 to ids - 1.
        ids: number of ids, background included.
        distances: distances to the neighbours, in cells.

    Raises:
        ValueError: an id is out of range, a distance is less than 1, or there are no distances.
    """
    if not distances or min(distances) < 1:
        raise ValueError(f"distances are {list(distances)}; there must be at least one, and each at least 1")
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
        # The same to the bit on every rank, since all ranks must agree on the graph.
        add_at(shares, pairs.flatten(), share.flatten())
        images.index_add_(0, present.flatten(), (neighbours > 0).long().flatten())
    return CooccurrenceSums(shares.view(ids, ids), images)


def offsets(distances: Sequence[int]) -> list[Offset]:
    """Return the rows and columns from a cell to each neighbour, in whole cells; some offsets occur twice."""
    return [
        (round(math.sin(angle) * distance), round(math.cos(angle) * distance))
        for distance in distances
        for angle in ANGLES
    ]


def _split_offsets(all_offsets: list[Offset]) -> tuple[list[Offset], list[Offset]]:
    """Return one offset of each opposite pair (the other's counts are its transpose), and unpaired ones."""
    left, both_ways = list(all_offsets), []
    for offset in all_offsets:
        opposite = (-offset[0], -offset[1])
        if offset in left and opposite in left:
            left.remove(offset)
            left.remove(opposite)
            both_ways.append(offset)
    return both_ways, left


def _number_within_images(maps: Tensor, ids: int) -> tuple[Tensor, Tensor]:
    """Renumber each image's ids from 0; return the maps and the original ids, (n, most ids in an image).

    An image holds few of all ids, and the counts of few ids fit into the cache. Images with fewer ids than
    the most are padded with ids that they do not contain.
    """
    there = counts_per_image(maps, ids) > 0
    most = int(there.sum(dim=1).max()) if len(maps) else 0
    present = there.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    numbers = there.cumsum(dim=1) - 1
    return numbers.gather(1, maps.flatten(1)).view_as(maps), present


def _pair_counts(maps: Tensor, ids: int, some_offsets: list[Offset]) -> Tensor:
    """Count how often a cell of the first id has a neighbour of the second, (n, ids, ids) int64."""
    counts = maps.new_zeros(len(maps), ids * ids)
    for rows, columns in some_offsets:
        pairs = _shifted(maps, -rows, -columns) * ids + _shifted(maps, rows, columns)
        counts += counts_per_image(pairs, ids * ids)
    return counts.unflatten(1, (ids, ids))


def _shifted(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Crop the maps to the cells that lie at the offset (rows, columns) from another cell of the map."""
    height, width = maps.shape[1:]
    return maps[
        :,
        max(rows, 0) : max(height + min(rows, 0), 0),
        max(columns, 0) : max(width + min(columns, 0), 0),
    ]
