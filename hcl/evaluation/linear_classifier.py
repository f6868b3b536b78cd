"""The linear classifier: a 1x1 convolution on frozen tokens, and its file format (HCL, sections 7 and 9)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcl.data.samples import Dataset
from hcl.files import written_whole


def untrained_classifier(channels: int, classes: int, *, seed: int) -> nn.Conv2d:
    """Return a classifier with weights from N(0, 0.01²) and zero biases, the same for the same seed."""
    classifier = nn.Conv2d(channels, classes, kernel_size=1)
    assert classifier.bias is not None
    nn.init.normal_(classifier.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(classifier.bias)
    return classifier


def refuse_other_channels(classifier: nn.Conv2d, channels: int, path: str) -> None:
    """Raise a ValueError if the classifier takes tokens with another number of channels."""
    if classifier.in_channels != channels:
        raise ValueError(
            f"{path} classifies tokens with {classifier.in_channels} channels, but these have {channels}: "
            "use the tokens, the head and the backbone that it was trained on"
        )


def refuse_other_classes(classifier: nn.Conv2d, dataset: Dataset, path: str) -> None:
    """Raise a ValueError if the classifier has another number of classes than the data set."""
    if classifier.out_channels != len(dataset.class_names):
        raise ValueError(
            f"{path} has {classifier.out_channels} classes, but {dataset.name} has "
            f"{len(dataset.class_names)}: use the data that it was trained on"
        )


def logits_of(classifier: nn.Conv2d, tokens: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Map tokens (B, h·w, C) float32 of a grid (h, w) to logits (B, classes, size, size), bilinearly."""
    return at_size(grid_logits(classifier, tokens, grid), size)


def grid_logits(classifier: nn.Conv2d, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Map tokens (B, h·w, C) float32 of a grid (h, w) to logits (B, classes, h, w)."""
    return classifier(tokens.mT.unflatten(-1, grid))


def at_size(logits: Tensor, size: int) -> Tensor:
    """Upsample logits (B, classes, h, w) of a grid to (B, classes, size, size), bilinearly."""
    return F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)


def save_classifier(classifier: nn.Conv2d, path: Path) -> None:
    """Save a classifier in the published format: a dict whose ``linear_classifier`` holds weight and bias."""
    state = {name: tensor.cpu() for name, tensor in classifier.state_dict().items()}
    with written_whole(path) as file:
        torch.save({"linear_classifier": state}, file)
