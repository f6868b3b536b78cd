"""Pixels in tiles that are compact in the space of position and colour, and the tiles' bounding boxes.

The tiles are the leaves of a k-d tree of fixed shape: the pixels of every node are sorted along its widest
side and halved, until a node is one tile. Only the order of the pixels depends on the image, while shapes do
not, and nothing leaves the device.

B images, N pixels, T tiles, S = T x BLOCK slots; slots beyond the pixels repeat the last pixel.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.crf.energy import Pairwise

BLOCK = 64
# exp(-d^2 / 2) is exp2(-(s d)^2) with this s.
EXP2_SCALE = math.sqrt(0.5 * math.log2(math.e))


class Tiles(NamedTuple):
    """Pixels by tile.

    Attributes:
        order: (B, S) int64, the pixel in each slot; N or more where there is none.
        slot: (B, N) int64, the slot of each pixel.
        coordinates: (B, 5, S) int32, row, column, red, green and blue of each slot.
        features: (B, 5, S) float32, coordinates scaled so that the weight of two pixels is exp2(-distance^2).
        low, high: (B, 5, T) float32, the corners of the tiles' bounding boxes.
    """

    order: Tensor
    slot: Tensor
    coordinates: Tensor
    features: Tensor
    low: Tensor
    high: Tensor


def build_tiles(images: Tensor, pairwise: Pairwise) -> Tiles:
    """Sort the pixels of images (B, 3, H, W) into tiles of BLOCK."""
    batch, _, height, width = images.shape
    coordinates = _coordinates(images)
    scale = column(feature_scale(pairwise), coordinates).float()
    places = _kd_order(coordinates, scale, batch, (max(height, width, 256) - 1).bit_length())
    coordinates = coordinates[:, places].unflatten(1, (batch, -1)).transpose(0, 1).contiguous()
    slots = coordinates.shape[2]
    every = torch.arange(slots, device=places.device)
    order = places.view(batch, slots) - slots * torch.arange(batch, device=places.device)[:, None]
    slot = order.new_zeros(order.shape).scatter_(1, order, every.expand_as(order))[:, : height * width]
    features = coordinates * scale
    low, high = features.unflatten(2, (-1, BLOCK)).aminmax(dim=3)
    return Tiles(order, slot, coordinates, features, low, high)


def feature_scale(pairwise: Pairwise) -> list[float]:
    """Return the factors that turn row, column, red, green and blue into features."""
    return [EXP2_SCALE / pairwise.bilateral_sxy] * 2 + [EXP2_SCALE / pairwise.bilateral_srgb] * 3


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """Put numbers (any, 1) float64 on a tensor's device, without host synchronisation."""
    return torch.cat([like.new_full((1, 1), value, dtype=torch.float64) for value in values])


def _coordinates(images: Tensor) -> Tensor:
    """Return row, column and colour of every slot, image after image. (5, B x S) int32."""
    batch, _, height, width = images.shape
    rows, columns = (torch.arange(size, dtype=torch.int32, device=images.device) for size in (height, width))
    position = torch.stack([rows[:, None].expand(height, width), columns.expand(height, width)])
    position = position[:, None].expand(-1, batch, -1, -1)
    coordinates = torch.cat([position, images.transpose(0, 1).int()]).flatten(2)
    beyond = coordinates[..., -1:].expand(-1, -1, -(height * width) % BLOCK)
    return torch.cat([coordinates, beyond], dim=2).flatten(1)


def _kd_order(coordinates: Tensor, scale: Tensor, batch: int, bits: int) -> Tensor:
    """Order slots by the leaves of the images' k-d trees; coordinates are below 2^bits. (B x S,) int64."""
    slots = coordinates.shape[1]
    tiles = slots // batch // BLOCK
    levels = (tiles - 1).bit_length()
    order = torch.arange(slots, device=coordinates.device)
    image, tile = (torch.arange(count, device=order.device) for count in (batch, tiles))
    key = torch.int32 if batch << levels + bits <= 2**31 else torch.int64
    for level in range(levels):
        # Nodes are runs of whole tiles, image after image.
        node = ((image[:, None] << level) + torch.div(tile << level, tiles, rounding_mode="floor")).flatten()
        current = coordinates[:, order].unflatten(1, (-1, BLOCK))
        widest = _widest(current, node, batch << level, scale)
        value = current.gather(0, widest[None, :, None].expand(1, -1, BLOCK))[0]
        # The stable sort keeps equal keys in order.
        order = order[((node.to(key)[:, None] << bits) + value).flatten().argsort(stable=True)]
    return order


def _widest(coordinates: Tensor, node: Tensor, nodes: int, scale: Tensor) -> Tensor:
    """Return the widest dimension of each tile's node. coordinates (5, T, BLOCK), node (T,); (T,) int64."""
    corners = []
    for corner, side in zip(coordinates.aminmax(dim=2), ("amin", "amax"), strict=True):
        empty = corner.new_zeros(len(corner), nodes)
        corners.append(empty.scatter_reduce(1, node.expand_as(corner), corner, side, include_self=False))
    low, high = corners
    return ((high - low) * scale).argmax(dim=0)[node]


def farthest(tolerance: float) -> float:
    """Return the squared distance of pixels at which their weight is the tolerance."""
    return -math.log2(tolerance) if tolerance else math.inf
