"""The backbones that HCL can be built on, by name (HCL, sections 1 and 11)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from hcl.models.downloads import BACKBONE_FILES, fetch
from hcl.models.pm_vit import PMViT
from hcl.models.vit import VisionTransformer, ViTConfig, initialise
from hcl.models.weights import CheckpointError, load_into, read_checkpoint

TINY_WEIGHTS = Path(__file__).with_name("tiny.safetensors")
"""Made by scripts/pretrain_tiny.py; the file's metadata hold the settings."""

# Trained with the model, but only used for masked images.
_UNUSED_KEYS = frozenset({"mask_token"})


class Backbone(NamedTuple):
    """A backbone's shape and the patch sizes of its levels."""

    vit: ViTConfig
    patch_sizes: tuple[int, ...]


def _dino(patch_size: int, patch_sizes: tuple[int, ...], width: int, heads: int) -> Backbone:
    table = 224 // patch_size
    return Backbone(ViTConfig(patch_size=patch_size, width=width, heads=heads, table=table), patch_sizes)


def _dinov2(width: int, heads: int, depth: int = 12, *, registers: bool) -> Backbone:
    vit = ViTConfig(
        patch_size=14,
        width=width,
        depth=depth,
        heads=heads,
        table=37,
        registers=4 if registers else 0,
        layer_scale=True,
        position_offset=0.0 if registers else 0.1,
        antialias=registers,
    )
    return Backbone(vit, (14, 28, 56))


_TINY = Backbone(ViTConfig(width=96, depth=4, heads=3), (16, 32, 56))

BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        "dino_vits16": _dino(16, (16, 32, 56), 384, 6),
        "dino_vits8": _dino(8, (8, 16, 32, 56), 384, 6),
        "dino_vitb16": _dino(16, (16, 32, 56), 768, 12),
        "dino_vitb8": _dino(8, (8, 16, 32, 56), 768, 12),
        "dinov2_vits14": _dinov2(384, 6, registers=False),
        "dinov2_vits14_reg": _dinov2(384, 6, registers=True),
        "dinov2_vitb14": _dinov2(768, 12, registers=False),
        "dinov2_vitb14_reg": _dinov2(768, 12, registers=True),
        "dinov2_vitl14": _dinov2(1024, 16, depth=24, registers=False),
        "dinov2_vitl14_reg": _dinov2(1024, 16, depth=24, registers=True),
        "tiny": _TINY,
        "tiny_random": _TINY,
    }
)


@dataclass
class BackboneConfig:
    """Choice of the backbone.

    Args:
        name: dino_vits16, dino_vits8, dino_vitb16, dino_vitb8, dinov2_vits14, dinov2_vitb14, dinov2_vitl14,
            with registers dinov2_vits14_reg, dinov2_vitb14_reg, dinov2_vitl14_reg; or tiny, which was
            pretrained on generated scenes and comes with the project; or tiny_random, which has the same
            shape and seeded random weights.
        weights: file with the backbone's state dict, by torch.save or .safetensors; by default the project's
            own weights (tiny) or the backbone authors', which are downloaded.
        patch_sizes: patch sizes of the levels in pixels, ascending from the backbone's own; by default the
            usual ones.
    """

    name: str = "dino_vits16"
    weights: str | None = None
    patch_sizes: list[int] | None = None

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            raise ValueError(f"backbone {self.name!r} is not known; choose one of {', '.join(BACKBONES)}")


def build_backbone(config: BackboneConfig) -> PMViT:
    """Build the chosen backbone with its weights: frozen, on the CPU, in float32.

    Raises:
        ValueError: the patch sizes do not ascend from the backbone's own.
        FileNotFoundError, CheckpointError: the weights file is missing, unsafe, or of another model.
        DownloadError: the weights can neither be found in the cache nor downloaded.
    """
    backbone = BACKBONES[config.name]
    vit = VisionTransformer(backbone.vit)
    if config.weights is None and config.name == "tiny_random":
        _draw_weights(vit)
    else:
        path = config.weights or _own_weights(config.name)
        state = read_checkpoint(path, "file of backbone weights")
        used = {key: value for key, value in state.items() if key not in _UNUSED_KEYS}
        _load(vit, used, config.name, path)
    return PMViT(vit, config.patch_sizes or backbone.patch_sizes)


def _load(vit: VisionTransformer, state: dict[str, Any], name: str, path: str | Path) -> None:
    try:
        load_into(vit, state, path)
    except CheckpointError as error:
        fitting = [other for other in BACKBONES if _has_shapes_of(other, state)]
        if fitting and name not in fitting:
            raise CheckpointError(
                f"{path} does not fit {name}; its shapes are those of {' or '.join(fitting)} "
                "(--backbone.name)"
            ) from error
        raise


def _has_shapes_of(name: str, state: dict[str, Any]) -> bool:
    with torch.device("meta"):
        expected = VisionTransformer(BACKBONES[name].vit).state_dict()
    shapes = {key: getattr(value, "shape", None) for key, value in state.items()}
    return shapes == {key: tensor.shape for key, tensor in expected.items()}


def _own_weights(name: str) -> Path:
    return TINY_WEIGHTS if name == "tiny" else fetch(BACKBONE_FILES[name])


def _draw_weights(vit: VisionTransformer) -> None:
    """Draw random weights, always the same whatever the state of the global generator."""
    generator = torch.Generator().manual_seed(0)
    initialise(vit, generator)
    for parameter in (vit.cls_token, vit.pos_embed, *vit.patch_embed.parameters()):
        nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
