"""Counts of ids, image by image: what clusters are judged and linked by."""

import torch
from torch import Tensor

IMAGES_AT_A_TIME = 64
"""Images whose counts are held at once: tens of megabytes for maps of 100 x 100 cells and 200 ids."""


def check_ids(ids: Tensor, size: int) -> None:
    """Refuse integers (any shape) that are not all from 0 to size - 1.

    Raises:
        ValueError: an id is out of range.
    """
    if ids.numel():
        lowest, highest = (int(bound) for bound in ids.aminmax())
        if lowest < 0 or highest >= size:
            raise ValueError(f"ids from {lowest} to {highest}, but there are only 0 to {size - 1}")


def check_shapes(first: Tensor, second: Tensor, names: str) -> None:
    """Refuse two maps of different shapes; ``names`` says what the two are.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"{names} differ in shape: {tuple(first.shape)} and {tuple(second.shape)}")


def counts_per_image(ids: Tensor, size: int) -> Tensor:
    """How often each id occurs in each image.

    Args:
        ids: (n, ...) int64 from 0 to size - 1; another one would be counted for another image.
        size: how many ids there are.

    Returns:
        (n, size) int64.
    """
    rows = torch.arange(len(ids), device=ids.device)[:, None] * size
    counts = torch.bincount((ids.flatten(1) + rows).flatten(), minlength=len(ids) * size)
    return counts.view(len(ids), size)
