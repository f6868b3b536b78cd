"""Dense nearest-neighbour retrieval: tokens take over the labels of the training tokens nearest to them.

Balazevic et al., "Towards In-context Scene Understanding", 2023 ("Hummingbird"). The facts are those of the
open evaluation by Pariza, Salehi and Asano, 2024: 30 neighbours by cosine, temperature 0.02, a label
distribution for each token, predictions upsampled bilinearly before the best class is taken, labels
compared at the size of the input. Four things differ here:

- Pixels that are ignored do not count in a token's distribution, and tokens without any other stay out of
  the memory; there they count as class 0.
- The search is exact; there ScaNN approximates it, or faiss on GPUs finds it.
- A memory holds as many tokens as asked for, where images have them, in shares that differ by at most one;
  there shares are rounded down, and rows of zeros remain.
- Classes are scored as they were retrieved; there predicted classes are first matched with the labelled ones,
  one to one by IoU on the scored images. That reads the labels that it is scored by, and can only raise the
  mIoU: `hcl.evaluation.metrics.Scores.matched_miou` is that number.

Which images a memory is made of is up to the caller; there, random crops with colour jitter.
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
        labels: (T, classes) their label distributions, of any float dtype, on the same device.
    """

    tokens: Tensor
    labels: Tensor


def unit_length(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """Tokens (..., D) scaled to unit length in float32, then brought to ``dtype``."""
    return F.normalize(tokens.float(), dim=-1).to(dtype)


@torch.no_grad()
def retrieve(queries: Tensor, memory: Memory, *, neighbours: int = 30, temperature: float = 0.02) -> Tensor:
    """Label distributions of tokens: their nearest neighbours', weighted by softmax(cosine / temperature).

    Args:
        queries: (M, D) floating point, of any length, on the device to compute on.
        memory: labelled tokens.
        neighbours: k.
        temperature: the smaller, the more the nearest count.

    Returns:
        (M, classes) float32, on the device of the queries.

    Raises:
        ValueError: the memory is smaller than ``neighbours`` or of another width, or the temperature is not
            above 0.
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
    """The likeliest class of each pixel.

    Args:
        distributions: (n, h * w, classes) of the tokens, floating point.
        grid: (h, w).
        size: side in pixels.

    Returns:
        (n, size, size) int64, of the distributions upsampled bilinearly.
    """
    maps = distributions.mT.unflatten(-1, grid)
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False).argmax(dim=1)
