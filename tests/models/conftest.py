"""Small backbones for the tests of the models."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hcl.models.vit import VisionTransformer, ViTConfig


@pytest.fixture
def make_vit() -> Callable[..., VisionTransformer]:
    """A frozen backbone of two narrow blocks, random everywhere; keywords change its configuration."""

    def make(seed: int = 0, **changes: Any) -> VisionTransformer:
        small = ViTConfig(patch_size=4, width=12, depth=2, heads=3, table=6)
        vit = VisionTransformer(replace(small, **changes))
        generator = torch.Generator().manual_seed(seed)
        for parameter in vit.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        return vit.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def section(golden: Callable[[str], dict[str, np.ndarray]]) -> Callable[[str, str], dict[str, Tensor]]:
    """The arrays of a golden file under a prefix, as a state dict."""

    def load(name: str, prefix: str) -> dict[str, Tensor]:
        arrays = golden(name)
        return {
            key.removeprefix(prefix): torch.from_numpy(array)
            for key, array in arrays.items()
            if key.startswith(prefix)
        }

    return load
