"""Images with class probabilities for the CRF, from files or generated."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hcl.evaluation.linear_classifier import at_size

REGIONS = 30
CELL = 14


class Scene(NamedTuple):
    """Probabilities (C, H, W) float32, image (3, H, W) uint8, labels (H, W) int64 where they are known."""

    probabilities: Tensor
    image: Tensor
    labels: Tensor | None


def read_scenes(paths: Sequence[Path]) -> Iterator[Scene]:
    """Read .npz files of `logits` (B, C, h, w) float32, `images` (B, 3, S, S), maybe `labels` (B, S, S)."""
    for path in paths:
        with np.load(path) as archive:
            if missing := {"logits", "images"} - set(archive):
                raise ValueError(f"{path}: expected arrays 'logits' and 'images', lacks {sorted(missing)}")
            arrays = {name: torch.from_numpy(archive[name]) for name in archive}
        for i, (logits, image) in enumerate(zip(arrays["logits"], arrays["images"], strict=True)):
            labels = arrays["labels"][i].long() if "labels" in arrays else None
            yield Scene(_probabilities(logits, image.shape[-1]), image, labels)


def generate_scenes(count: int, classes: int, side: int) -> Iterator[Scene]:
    """Generate shaded, noisy regions, with probabilities as of a classifier on a grid of cells."""
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float32)] * 2)
        region = torch.cdist(pixels, side * torch.rand(REGIONS, 2, generator=generator)).argmin(dim=1)
        colours = torch.randint(20, 200, (REGIONS, 3), generator=generator)[region].T.unflatten(
            1, (side, side)
        )
        shade = 40 * torch.rand(1, generator=generator) * torch.arange(side) / side
        image = (colours + shade + 4 * torch.randn(3, side, side, generator=generator)).clamp(0, 255).byte()
        labels = torch.randint(0, classes, (REGIONS,), generator=generator)[region].view(side, side)
        share = F.one_hot(labels, classes).permute(2, 0, 1)[None].float()
        coarse = F.interpolate(share, size=(max(side // CELL, 1),) * 2, mode="area")
        logits = 6 * coarse + torch.randn(coarse.shape, generator=generator)
        yield Scene(_probabilities(logits[0], side), image, labels)


def _probabilities(logits: Tensor, side: int) -> Tensor:
    """Turn logits (C, h, w) of a grid into probabilities (C, side, side), as in the linear protocol."""
    return at_size(logits[None], side).softmax(dim=1)[0]
