"""Labels of tokens, and which tokens a memory keeps: the training side of dense retrieval.

Balazevic et al., "Towards In-context Scene Understanding", 2023, as implemented by the open evaluation of
Pariza, Salehi and Asano, "Hummingbird Evaluation for vision encoders", 2024.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hcl.evaluation.counting import counts_per_image
from hcl.randomness import generator

IMAGES_AT_A_TIME = 16


def token_label_distributions(
    labels: Tensor, grid: tuple[int, int], classes: int, ignore_index: int = 255
) -> tuple[Tensor, Tensor]:
    """Return the share of each class among the labelled pixels of every token's patch.

    Args:
        labels: (n, H, W) uint8 class ids or ``ignore_index``; the grid divides H and W.
        grid: (h, w) tokens.
        classes: number of classes.
        ignore_index: label of pixels that do not count, at least ``classes``.

    Returns:
        (n, h * w, classes) float32, whose rows sum to 1, or to 0 where no pixel of the patch is labelled; and
        (n, h * w) bool, true where at least one pixel is labelled.

    Raises:
        ValueError: the grid does not divide the labels, or a label is not a class.
    """
    height, width = labels.shape[1:]
    if height % grid[0] or width % grid[1]:
        raise ValueError(
            f"labels of {height}x{width} pixels do not divide into {grid[0]}x{grid[1]} patches: resize "
            "them to the size of the images that the tokens come from"
        )
    rows = torch.arange(height, device=labels.device) // (height // grid[0])
    columns = torch.arange(width, device=labels.device) // (width // grid[1])
    tokens, values = grid[0] * grid[1], classes + 1
    places = (rows[:, None] * grid[1] + columns) * values
    distributions = torch.empty(len(labels), tokens, classes, device=labels.device)
    for part, out in zip(labels.split(IMAGES_AT_A_TIME), distributions.split(IMAGES_AT_A_TIME), strict=True):
        _refuse_unknown(part, classes, ignore_index)
        counts = counts_per_image(places + part.long().clamp(max=classes), tokens * values)
        labelled = counts.view(-1, tokens, values)[..., :classes].float()
        torch.div(labelled, labelled.sum(dim=2, keepdim=True).clamp(min=1), out=out)
    return distributions, distributions.sum(dim=2) > 0


def _refuse_unknown(labels: Tensor, classes: int, ignore_index: int) -> None:
    unknown = labels[(labels >= classes) & (labels != ignore_index)].unique()
    if len(unknown):
        raise ValueError(f"labels {unknown.tolist()} are out of range for {classes} classes")


def memory_shares(memory_size: int, images: int) -> np.ndarray:
    """Return how many tokens each image may give to a memory, (images,), as evenly as possible."""
    ends = np.arange(images + 1) * memory_size // images
    return np.diff(ends)


def sample_tokens(
    distributions: Tensor,
    labelled: Tensor,
    images: Sequence[int] | np.ndarray,
    shares: np.ndarray,
    *,
    seed: int,
) -> Tensor:
    """Choose the tokens of some images that enter the memory, rare classes first.

    For every class that a token contains, count the tokens of its image that contain the class. The token's
    score is the sum of these counts times a number drawn from U(0, 1). The tokens with the lowest scores are
    chosen, among those with a labelled pixel. The draw depends only on the seed and the image.

    Args:
        distributions: (n, N, classes) from `token_label_distributions`.
        labelled: (n, N) bool, also from `token_label_distributions`.
        images: (n,) indices of the images in the data set, on the CPU.
        shares: share of every image of the data set, from `memory_shares`.
        seed: seed of the draw.

    Returns:
        (n, N) bool, true for the chosen tokens: the share of each image, or all its labelled ones if fewer.
    """
    chosen = torch.empty_like(labelled)
    batches = zip(
        *(x.split(IMAGES_AT_A_TIME) for x in (distributions, labelled, chosen, torch.as_tensor(images))),
        strict=True,
    )
    for distribution, known, out, part in batches:
        score = _scores(distribution, part.tolist(), seed).masked_fill(~known, torch.inf)
        place = score.argsort(dim=1, stable=True).argsort(dim=1)
        share = torch.from_numpy(shares[part.numpy()]).to(known.device)
        torch.logical_and(place < share[:, None], known, out=out)
    return chosen


def _scores(distributions: Tensor, images: list[int], seed: int) -> Tensor:
    present = distributions > 0
    frequency = present.sum(dim=1, keepdim=True)
    tokens = distributions.shape[1]
    draws = [generator(seed, "retrieval memory", image).random(tokens) for image in images]
    uniform = torch.from_numpy(np.array(draws).reshape(len(images), tokens)).to(distributions.device)
    return (present * frequency).sum(dim=2) * uniform
