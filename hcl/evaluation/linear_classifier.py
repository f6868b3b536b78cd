"""The linear classifier: a 1x1 convolution on frozen tokens, and its published file format (HCL, 7, 9)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcl.data.samples import Dataset
from hcl.files import written_whole


def untrained_classifier(channels: int, classes: int, *, seed: int) -> nn.Conv2d:
    """Weights normal with standard deviation 0.01, biases 0; the same for the same seed."""
    classifier = nn.Conv2d(channels, classes, kernel_size=1)
    assert classifier.bias is not None
    nn.init.normal_(classifier.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(classifier.bias)
    return classifier


def refuse_other_channels(classifier: nn.Conv2d, channels: int, path: str) -> None:
    """Raise a ValueError where a classifier's file is for tokens of another width than these."""
    if classifier.in_channels != channels:
        raise ValueError(
            f"{path} classifies tokens of {classifier.in_channels} channels, but these have {channels}: "
            "choose the tokens, the head and the backbone that it was trained on"
        )


def refuse_other_classes(classifier: nn.Conv2d, dataset: Dataset, path: str) -> None:
    """Raise a ValueError where a classifier's file tells other classes apart than a data set has."""
    if classifier.out_channels != len(dataset.class_names):
        raise ValueError(
            f"{path} tells {classifier.out_channels} classes apart, but there are "
            f"{len(dataset.class_names)} in {dataset.name}: choose the data that it was trained on"
        )


def logits_of(classifier: nn.Conv2d, tokens: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Tokens (B, h·w, C) float32 of a grid (h, w) to logits (B, classes, size, size), bilinear."""
    return at_size(grid_logits(classifier, tokens, grid), size)


def grid_logits(classifier: nn.Conv2d, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, h·w, C) float32 of a grid (h, w) to logits (B, classes, h, w)."""
    return classifier(tokens.mT.unflatten(-1, grid))


def at_size(logits: Tensor, size: int) -> Tensor:
    """Logits (B, classes, h, w) of a grid to (B, classes, size, size), bilinear."""
    return F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)


def save_classifier(classifier: nn.Conv2d, path: Path) -> None:
    """Write the published format: a dict whose ``linear_classifier`` holds weight and bias."""
    state = {name: tensor.cpu() for name, tensor in classifier.state_dict().items()}
    with written_whole(path) as file:
        torch.save({"linear_classifier": state}, file)
