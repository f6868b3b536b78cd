"""Counts of ids in each image, from which clusters are scored and linked."""

import torch
from torch import Tensor

IMAGES_AT_A_TIME = 64
"""Images whose counts are in memory at once: tens of megabytes for maps of 100 x 100 cells and 200 ids."""


def check_ids(ids: Tensor, size: int) -> None:
    """Check that all ids, integers of any shape, are from 0 to size - 1.

    Raises:
        ValueError: an id is out of range.
    """
    if ids.numel():
        lowest, highest = (int(bound) for bound in ids.aminmax())
        if lowest < 0 or highest >= size:
            raise ValueError(
                f"the ids range from {lowest} to {highest}; they must lie between 0 and {size - 1}"
            )


def check_shapes(first: Tensor, second: Tensor, names: str) -> None:
    """Check that two maps have the same shape; ``names`` names both in the error.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"{names} differ in shape: {tuple(first.shape)} and {tuple(second.shape)}")


def counts_per_image(ids: Tensor, size: int) -> Tensor:
    """Count how often each id occurs in each image.

    Args:
        ids: (n, ...) int64 from 0 to size - 1; an id out of range would be counted in another image.
        size: number of ids.

    Returns:
        (n, size) int64.
    """
    rows = torch.arange(len(ids), device=ids.device)[:, None] * size
    counts = torch.bincount((ids.flatten(1) + rows).flatten(), minlength=len(ids) * size)
    return counts.view(len(ids), size)
