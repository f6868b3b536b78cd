"""The dense CRF's tiles in plain torch: which pairs are near, and the filter over only these."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.crf.tiles import BLOCK, Tiles, farthest

# Sums (B, any, H, W) by the bilateral kernel's weights, not normalised.
Filter = Callable[[Tensor], Tensor]


def into_slots(tiles: Tiles, values: Tensor) -> Tensor:
    """Bring (B, C, N) into the slots; 0 where there is no pixel. (B, C, S)."""
    padded = F.pad(values, (0, tiles.order.shape[1] - values.shape[2]))
    return padded.gather(2, tiles.order[:, None].expand(-1, values.shape[1], -1))


def out_of_slots(tiles: Tiles, values: Tensor) -> Tensor:
    """Bring (B, C, S) back into the order of the image. (B, C, N)."""
    return values.gather(2, tiles.slot[:, None].expand(-1, values.shape[1], -1))


def near_tiles(tiles: Tiles, tolerance: float) -> Tensor:
    """Return for which tiles' bounding boxes two pixels can have a weight of `tolerance` or more.

    (B, T, T) bool.
    """
    batch, _, count = tiles.low.shape
    distance = tiles.low.new_zeros(batch, count, count)
    for low, high in zip(tiles.low.unbind(1), tiles.high.unbind(1), strict=True):
        gap = torch.maximum(low[:, :, None] - high[:, None], low[:, None] - high[:, :, None])
        distance += gap.clamp_(min=0).square_()
    return distance <= farthest(tolerance)


def block_sparse_filter(tiles: Tiles, near: Tensor) -> Filter:
    """Return the bilateral filter of one image by matrix products, tile by tile; near (T, T) bool."""
    features = tiles.features[0].T.unflatten(0, (-1, BLOCK))
    neighbours = [row.nonzero().flatten() for row in near]

    def bilateral(values: Tensor) -> Tensor:
        slots = into_slots(tiles, values.flatten(2))[0].T.unflatten(0, (-1, BLOCK)).contiguous()
        sums = slots.new_empty(len(slots), slots.shape[2], BLOCK)
        for tile, others in enumerate(neighbours):
            weights = _weights(features[others].flatten(0, 1), features[tile])
            torch.mm(slots[others].flatten(0, 1).T, weights, out=sums[tile])
        return out_of_slots(tiles, sums.transpose(0, 1).flatten(1)[None]).view(values.shape)

    return bilateral


def _weights(rows: Tensor, columns: Tensor) -> Tensor:
    """Compute exp2(-distance^2) as one matrix product, around the columns' centre to keep precision."""
    rows, columns = rows - columns.mean(dim=0), columns - columns.mean(dim=0)
    ones = rows.new_ones(len(rows), 1)
    left = torch.cat([2 * rows, -rows.square().sum(dim=1, keepdim=True), -ones], dim=1)
    right = torch.cat([columns, ones[: len(columns)], columns.square().sum(dim=1, keepdim=True)], dim=1)
    return (left @ right.T).exp2_()
