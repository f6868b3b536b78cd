"""Counts of ids, image by image: what clusters are judged and linked by."""

import torch
from torch import Tensor

IMAGES_AT_A_TIME = 64
"""Images whose counts are held at once: tens of megabytes for maps of 100 x 100 cells and 200 ids."""


def counts_per_image(ids: Tensor, size: int) -> Tensor:
    """How often each id occurs in each image.

    Args:
        ids: (n, ...) integers from 0 to size - 1.
        size: how many ids there are.

    Returns:
        (n, size) int64.

    Raises:
        ValueError: an id is out of range.
    """
    ids = ids.flatten(1)
    if ids.numel():
        lowest, highest = (int(bound) for bound in ids.aminmax())
        # Such an id would be counted for another image.
        if lowest < 0 or highest >= size:
            raise ValueError(f"ids from {lowest} to {highest} where only 0 to {size - 1} can be")
    rows = torch.arange(len(ids), device=ids.device)[:, None] * size
    return torch.bincount((ids + rows).flatten(), minlength=len(ids) * size).view(len(ids), size)
