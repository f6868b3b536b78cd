"""The exact dense CRF in Triton: lists of near tiles, the bilateral filter over them, mean field around it.

The bilateral filter is attention without softmax: the weights of two tiles of pixels are computed on the fly
and multiplied with the messages of all classes; tile pairs that are far apart are skipped.
B images, C classes, N pixels, T tiles, S slots (see `tiles`), W: C rounded up to a multiple of 8.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from kernels.crf.configurations import compile_cases
from kernels.crf.energy import Pairwise, unary_energy
from kernels.crf.gaussian import gaussian_matrices, gaussian_reach
from kernels.crf.operands import FAR, product_operands, products_suffice
from kernels.crf.operators import crf_filter, crf_gaussian, crf_update, near_lists
from kernels.crf.tiles import BLOCK, Tiles, build_tiles, farthest, feature_scale
from kernels.dispatch import TRITON_INTERPRETED
from kernels.precision import without_autocast

__all__ = ["compile_cases", "dense_crf"]

# Messages and weights lie in [0, 1] and are summed in float32, where errors of 2^-11 average out.
MESSAGE_DTYPE = torch.float32 if TRITON_INTERPRETED else torch.float16
# Images of a group have together at most this many tile pairs (4 bytes each), but a group has at least one
# image, and at most as many as a grid has programs along its second axis.
MAX_TILE_PAIRS = 2**28
MAX_IMAGES = 2**16 - 1


class Bilateral(NamedTuple):
    """The bilateral kernel of images, as sparse as the tolerance allows.

    Attributes:
        rows, columns: operands of products (`product_operands`), or of differences, (B, 5, S) float32.
        near, counts: for every tile the tiles near it, in order, (B, T, T), and their number, (B, T); int32.
        scale: (B, S) float32, one over the root of a slot's row sum.
        slot: (B, N) int64, the slot of each pixel.
    """

    rows: Tensor
    columns: Tensor
    near: Tensor
    counts: Tensor
    scale: Tensor
    slot: Tensor

    def filter(self, values: Tensor) -> Tensor:
        """Sum values (B, S, W) by weight. (B, S, W) float32."""
        return crf_filter(values, self.rows, self.columns, self.near, self.counts)


def dense_crf(
    probabilities: Tensor, images: Tensor, iterations: int, pairwise: Pairwise, tolerance: float
) -> Tensor:
    """Run mean field on a batch, in groups of images that the size of their lists of near tiles allows."""
    tiles = triton.cdiv(images.shape[2] * images.shape[3], BLOCK)
    group = min(max(MAX_TILE_PAIRS // tiles**2, 1), MAX_IMAGES)
    groups = zip(probabilities.float().split(group), images.split(group), strict=True)
    with without_autocast(probabilities):
        return torch.cat(
            [mean_field(p, bilateral_kernel(i, pairwise, tolerance), iterations, pairwise) for p, i in groups]
        )


def mean_field(probabilities: Tensor, bilateral: Bilateral, iterations: int, pairwise: Pairwise) -> Tensor:
    """Alternate messages and softmax on probabilities (B, C, H, W) float32; nothing leaves the device."""
    unary = unary_energy(probabilities).contiguous()
    weights = gaussian_matrices(unary, pairwise.gaussian_sxy)
    reach = gaussian_reach(pairwise.gaussian_sxy)
    compat = (pairwise.gaussian_compat, pairwise.bilateral_compat)
    gaussian = sums = None
    for left in reversed(range(iterations + 1)):
        marginals, values = crf_update(
            unary, gaussian, sums, bilateral.slot, bilateral.scale, *compat, MESSAGE_DTYPE
        )
        if left:
            gaussian, sums = crf_gaussian(marginals, *weights, reach), bilateral.filter(values)
    return marginals


def bilateral_kernel(images: Tensor, pairwise: Pairwise, tolerance: float) -> Bilateral:
    """Sort the pixels of images (B, 3, H, W) and list which tiles are near each other.

    Raises:
        ValueError: the lists of near tiles do not fit into the device's memory.
    """
    tiles = build_tiles(images, pairwise)
    rows, columns = operands(tiles, images, pairwise)
    try:
        near, counts, scale = near_lists(
            tiles.low, tiles.high, rows, columns, farthest(tolerance), MESSAGE_DTYPE
        )
    except torch.OutOfMemoryError as error:
        batch, _, height, width = images.shape
        raise ValueError(
            f"impl='triton' takes {4 * batch * tiles.low.shape[2] ** 2 / 2**30:.1f} GiB of lists for images "
            f"of {height}x{width}, {batch} at a time, more than the GPU has left; "
            "use 'pydensecrf', or smaller images"
        ) from error
    return Bilateral(rows, columns, near, counts, scale, tiles.slot)


def operands(tiles: Tiles, images: Tensor, pairwise: Pairwise) -> tuple[Tensor, Tensor]:
    """Return the operands of the weights: of products if these are exact enough, else features.

    Columns of slots without a pixel are far from all rows, so that they weigh nothing.
    """
    centre = [images.shape[2] // 2, images.shape[3] // 2, 128, 128, 128]
    reach = [max(c, 1) for c in centre]
    scale = [s**2 for s in feature_scale(pairwise)]
    absent = tiles.order >= tiles.slot.shape[1]
    if not products_suffice(reach, scale):
        return tiles.features, tiles.features.masked_fill(absent[:, None], FAR)
    around = [x - c for x, c in zip(tiles.coordinates.unbind(1), centre, strict=True)]
    return product_operands(torch.stack(around, dim=1), reach, scale, absent)
