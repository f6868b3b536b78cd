"""Pixels in tiles that are compact in the space of position and colour, and which tiles are near each other.

A k-d tree of fixed shape: the pixels of every node are sorted along its widest side and halved, until a node
is one tile. Only the order of the pixels depends on the image, no shape does, and nothing leaves the device.

B images, N pixels, T tiles, S = T x BLOCK slots; slots beyond the pixels repeat the last one.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.crf.energy import Pairwise

BLOCK = 64
PAIRS_AT_ONCE = 2**22
EVERY = slice(None)
# exp(-d^2 / 2) is exp2(-(s d)^2) with this s.
EXP2_SCALE = math.sqrt(0.5 * math.log2(math.e))


class Tiles(NamedTuple):
    """Pixels by tile.

    Attributes:
        order: (B, S) int64, the pixel in each slot; N and more where there is none.
        slot: (B, N) int64, the slot of each pixel.
        features: (B, 5, S) float32, scaled so that the weight of two pixels is exp2(-distance^2).
        low, high: (B, 5, T) float32, the corners of the tiles' bounding boxes.
    """

    order: Tensor
    slot: Tensor
    features: Tensor
    low: Tensor
    high: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """Bring (B, C, N) into the slots; 0 where there is no pixel. (B, C, S)."""
        pixels = values.shape[2]
        padded = F.pad(values, (0, self.order.shape[1] - pixels))
        return padded.gather(2, self.order[:, None].expand(-1, values.shape[1], -1))

    def scatter(self, values: Tensor) -> Tensor:
        """Bring (B, C, S) back into the order of the image. (B, C, N)."""
        return values.gather(2, self.slot[:, None].expand(-1, values.shape[1], -1))


def build_tiles(images: Tensor, pairwise: Pairwise) -> Tiles:
    """Sort the pixels of images (B, 3, H, W) into tiles of BLOCK."""
    coordinates = _coordinates(images)
    position, colour = EXP2_SCALE / pairwise.bilateral_sxy, EXP2_SCALE / pairwise.bilateral_srgb
    scale = coordinates.new_tensor([position] * 2 + [colour] * 3, dtype=torch.float32)[:, None]
    order = _kd_order(coordinates, scale)
    features = _reordered(coordinates, order) * scale
    boxes = features.unflatten(2, (-1, BLOCK))
    slot = order.argsort(dim=1)[:, : images.shape[2] * images.shape[3]]
    return Tiles(order, slot, features, boxes.amin(dim=3), boxes.amax(dim=3))


def _coordinates(images: Tensor) -> Tensor:
    """Row, column and colour of every slot. (B, 5, S) int32."""
    batch, _, height, width = images.shape
    rows, columns = (torch.arange(size, dtype=torch.int32, device=images.device) for size in (height, width))
    position = torch.stack([rows[:, None].expand(height, width), columns.expand(height, width)])
    coordinates = torch.cat([position.expand(batch, -1, -1, -1), images.int()], dim=1).flatten(2)
    beyond = coordinates[..., -1:].expand(-1, -1, -(height * width) % BLOCK)
    return torch.cat([coordinates, beyond], dim=2)


def _kd_order(coordinates: Tensor, scale: Tensor) -> Tensor:
    """The k-d tree's leaves from left to right. (B, S) int64."""
    batch, dimensions, slots = coordinates.shape
    order = torch.arange(slots, device=coordinates.device).expand(batch, slots)
    tile = torch.div(order[0], BLOCK, rounding_mode="floor")
    tiles = slots // BLOCK
    for level in range((tiles - 1).bit_length()):
        node = torch.div(tile * 2**level, tiles, rounding_mode="floor")
        current = _reordered(coordinates, order)
        index = node.expand(batch, dimensions, slots)
        corner = current.new_zeros(batch, dimensions, 2**level)
        low, high = (
            corner.scatter_reduce(2, index, current, side, include_self=False) for side in ("amin", "amax")
        )
        widest = ((high - low) * scale).argmax(dim=1)
        value = current.gather(1, widest[:, None, node])[:, 0]
        # A coordinate has 16 bits; the stable sort keeps what is equal in order.
        order = order.gather(1, (node * 2**16 + value).argsort(dim=1, stable=True))
    return order


def _reordered(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(2, order[:, None].expand_as(values))


def near_tiles(tiles: Tiles, tolerance: float, rows: slice = EVERY) -> Tensor:
    """Whether any two pixels of two tiles can have a weight of `tolerance` or more.

    (B, T, T) bool, or only some of its rows.
    """
    batch, _, count = tiles.low.shape
    distance = tiles.low.new_zeros(batch, len(tiles.low[0, 0, rows]), count)
    for low, high in zip(tiles.low.unbind(1), tiles.high.unbind(1), strict=True):
        gap = torch.maximum(low[:, rows, None] - high[:, None], low[:, None] - high[:, rows, None])
        distance += gap.clamp_(min=0).square_()
    return torch.exp2(-distance) >= tolerance


def near_lists(tiles: Tiles, tolerance: float) -> tuple[Tensor, Tensor]:
    """For every tile the tiles near it, in order, and their number. (B, T, T) and (B, T) int32.

    Beside these, tile pairs take some 25 bytes each, but only PAIRS_AT_ONCE at a time.
    """
    batch, _, count = tiles.low.shape
    lists = tiles.low.new_empty(batch, count, count, dtype=torch.int32)
    counts = lists.new_empty(batch, count)
    height = max(PAIRS_AT_ONCE // (batch * count), 1)
    for begin in range(0, count, height):
        rows = slice(begin, begin + height)
        lists[:, rows], counts[:, rows] = _listed(near_tiles(tiles, tolerance, rows))
    return lists, counts


def _listed(near: Tensor) -> tuple[Tensor, Tensor]:
    """The places (B, R, T) of what is true in the rows of near (B, R, T), and how many (B, R) there are."""
    rank = near.cumsum(dim=2, dtype=torch.int32)
    counts = rank[..., -1].clone()
    every = torch.arange(near.shape[2], dtype=torch.int32, device=near.device).expand_as(near)
    # From 1 on; what is false goes to 0, which is left out.
    place = rank.mul_(near).long()
    places = rank.new_zeros(*near.shape[:2], near.shape[2] + 1).scatter_(2, place, every)
    return places[..., 1:], counts
