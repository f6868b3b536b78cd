"""What the engine's tests share: the golden model, and settings as a command line."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from hcl.distributed import World
from hcl.engine.step import TrainingStep
from hcl.models.hcl import HCL
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHeadConfig
from hcl.models.vit import VisionTransformer, ViTConfig

ALONE = World(0, 1, torch.device("cpu"))


class GoldenTraining(NamedTuple):
    """The model at the start of `train_steps`, its step, and the views of each step."""

    vectors: dict[str, np.ndarray]
    model: HCL
    step: TrainingStep
    views: Callable[[int], tuple[torch.Tensor, torch.Tensor]]


def weights(vectors: dict[str, np.ndarray], prefix: str) -> dict[str, torch.Tensor]:
    """The state dict stored under a prefix."""
    return {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in vectors.items()
        if name.startswith(prefix)
    }


def golden_model(vectors: dict[str, np.ndarray], backbone: dict[str, np.ndarray]) -> HCL:
    """The model of `train_steps` at its start, on the backbone of `pm_vit_p16`."""
    dino, head = weights(backbone, "dino."), weights(vectors, "init.online_seg_head.")
    width, depth = dino["norm.weight"].numel(), sum(name.endswith("norm1.weight") for name in dino)
    vit = VisionTransformer(ViTConfig(width=width, depth=depth, heads=int(backbone["num_heads"])))
    vit.load_state_dict(dino)
    projection_dim, hidden = head["projection_head.4.weight"].shape
    config = SegHeadConfig(width=len(head["norm.weight"]), hidden=hidden, projection_dim=projection_dim)
    model = HCL(PMViT(vit, [16, 32, 56]), config)
    for module in (model.online.seg_head, model.momentum):
        module.load_state_dict(head)
    model.online.predictor.load_state_dict(weights(vectors, "init.predictor."))
    return model


def arguments(settings: dict) -> list[str]:
    """The settings as a command line."""
    return [f"--{name}={value}" for name, value in settings.items()]
