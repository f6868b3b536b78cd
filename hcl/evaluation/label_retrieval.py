"""Dense nearest-neighbour retrieval: tokens take the labels of the nearest training tokens.

Balazevic et al., "Towards In-context Scene Understanding", 2023 ("Hummingbird"). The settings are those of
the open evaluation by Pariza, Salehi and Asano, 2024: 30 neighbours by cosine, temperature 0.02, a label
distribution for each token, predictions upsampled bilinearly before the best class is taken, labels
compared at the size of the input. Four things differ from that evaluation:

- Ignored pixels do not count in a token's distribution, and tokens that have only ignored pixels stay out of
  the memory; there, ignored pixels count as class 0.
- The search is exact; there, it is approximated by ScaNN, or done by faiss on GPUs.
- The memory holds the requested number of tokens, if the images have as many, in shares that differ by at
  most one; there, shares are rounded down, and rows of zeros remain.
- Classes are scored as they were retrieved; there, predicted classes are first matched with the labelled
  ones, one to one by IoU on the scored images. That uses the labels of the scored images and can only raise
  the mIoU: `hcl.evaluation.metrics.Scores.matched_miou` is that number.

The caller chooses the images of the memory; there, they are random crops with colour jitter.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hcl.evaluation.nearest_tokens import nearest_tokens

QUERIES_AT_A_TIME = 4096


class Memory(NamedTuple):
    """Labelled training tokens.

    Attributes:
        tokens: (T, D) of unit length (see `unit_length`), bfloat16 or float32 (see `nearest_tokens`), on any
            device.
        labels: (T, classes) label distributions of the tokens, of any float dtype, on the same device.
    """

    tokens: Tensor
    labels: Tensor


def unit_length(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale tokens (..., D) to unit length in float32, then convert them to ``dtype``."""
    return F.normalize(tokens.float(), dim=-1).to(dtype)


@torch.no_grad()
def retrieve(queries: Tensor, memory: Memory, *, neighbours: int = 30, temperature: float = 0.02) -> Tensor:
    """Average the label distributions of the nearest neighbours, weighted by softmax(cosine / temperature).

    Args:
        queries: (M, D) floating point, not necessarily normalised, on the device to compute on.
        memory: labelled tokens.
        neighbours: number of neighbours, k.
        temperature: temperature of the softmax; the smaller it is, the more the nearest neighbours count.

    Returns:
        (M, classes) float32, on the device of the queries.

    Raises:
        ValueError: the memory has fewer than ``neighbours`` tokens or another number of channels, or the
            temperature is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    found = nearest_tokens(unit_length(queries, torch.float32), memory.tokens, neighbours)
    weights = (found.similarity / temperature).softmax(dim=1)
    labels = [
        (weight[:, None] @ memory.labels[rows.to(memory.labels.device)].to(queries.device).float()).squeeze(1)
        for weight, rows in zip(
            weights.split(QUERIES_AT_A_TIME), found.rows.split(QUERIES_AT_A_TIME), strict=True
        )
    ]
    return torch.cat(labels)


def classes_of_pixels(distributions: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Return the most likely class of each pixel.

    Args:
        distributions: (n, h * w, classes) label distributions of the tokens, floating point.
        grid: (h, w).
        size: side of the result in pixels.

    Returns:
        (n, size, size) int64, the best classes of the bilinearly upsampled distributions.
    """
    maps = distributions.mT.unflatten(-1, grid)
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False).argmax(dim=1)
