"""The linear classifier: a 1x1 convolution on frozen tokens, and its published file format."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcl.evaluation.tokens import TokenExtractor
from hcl.files import written_whole


class LinearClassifier:
    """Classifies every pixel of an image by its tokens (HCL, section 7).

    Args:
        extractor: of the tokens.
        classes: to tell apart.
        seed: of the first weights, normal with standard deviation 0.01; biases begin at 0.

    Attributes:
        convolution: the only part that is trained, on the extractor's device.
    """

    def __init__(self, extractor: TokenExtractor, classes: int, *, seed: int = 0) -> None:
        self.extractor = extractor
        self.convolution = nn.Conv2d(extractor.channels, classes, kernel_size=1)
        assert self.convolution.bias is not None
        nn.init.normal_(self.convolution.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.convolution.bias)
        self.convolution.to(extractor.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to logits (B, classes, S, S), upsampled bilinearly."""
        size = images.shape[-1]
        # Tokens made in inference mode cannot be kept for backward; a copy made outside of it can.
        tokens = self.extractor(images).mT.unflatten(-1, self.extractor.grid(size)).clone()
        return F.interpolate(
            self.convolution(tokens), size=(size, size), mode="bilinear", align_corners=False
        )

    def save(self, path: Path) -> None:
        """Write the published format: a dict whose ``linear_classifier`` holds weight and bias."""
        state = {name: tensor.cpu() for name, tensor in self.convolution.state_dict().items()}
        with written_whole(path) as file:
            torch.save({"linear_classifier": state}, file)
