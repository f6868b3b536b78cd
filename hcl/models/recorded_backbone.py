"""Which backbone a head stands on: its checkpoint says so, and what has moved can be said otherwise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcl.models.backbones import BACKBONES, BackboneConfig
from hcl.models.weights import CheckpointError


@dataclass
class BackboneOverride:
    """What is said of the backbone beside a checkpoint, which may say nothing, or what has changed since.

    Args:
        name: of the backbone; by default the checkpoint's. A published checkpoint names none, so that it must
            be given; without a checkpoint it is dino_vits16 by default.
        weights: file with its state dict; by default the one that the training took, or that of the project
            or, downloaded, of the backbone's authors.
        patch_sizes: of the levels in pixels; by default the checkpoint's, or the usual ones.
    """

    name: str | None = None
    weights: str | None = None
    patch_sizes: list[int] | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            BackboneConfig(self.name)  # which refuses names that are not known

    def without_checkpoint(self) -> BackboneConfig:
        """The backbone where there is no checkpoint to record one."""
        return BackboneConfig(self.name or BackboneConfig.name, self.weights, self.patch_sizes)


def chosen_backbone(checkpoint: dict[str, Any], path: str | Path, asked: BackboneOverride) -> BackboneConfig:
    """The recorded backbone, but for weights and patch sizes that are asked for otherwise.

    Args:
        checkpoint: that was read already.
        path: where it came from, for errors.
        asked: what is said besides.

    Raises:
        ValueError: the backbone is neither given nor recorded, or another than the recorded one is given.
        FileNotFoundError: the recorded weights are not there, and no others are given.
        CheckpointError: what is recorded is no backbone.
    """
    own = recorded_backbone(checkpoint, path)
    if own is None:
        if asked.name is None:
            raise ValueError(
                f"{path} does not say which backbone it was trained on: name it (--backbone.name), "
                "as dino_vits16"
            )
        return BackboneConfig(asked.name, asked.weights, asked.patch_sizes)
    if asked.name not in (None, own.name):
        raise ValueError(
            f"{path} was trained on the backbone {own.name}, not on {asked.name}: leave out the name "
            f"(--backbone.name), or choose a checkpoint of {asked.name}"
        )
    if asked.weights is None and own.weights is not None and not Path(own.weights).is_file():
        raise FileNotFoundError(
            f"{path} was trained on the backbone's weights {own.weights}, which are not there: "
            "say where they are (--backbone.weights)"
        )
    return BackboneConfig(own.name, asked.weights or own.weights, asked.patch_sizes or own.patch_sizes)


def recorded_backbone(checkpoint: dict[str, Any], path: str | Path) -> BackboneConfig | None:
    """What a checkpoint records: its settings of the backbone, or only a name of this project as ``arch``.

    None where it records neither; an ``arch`` such as vit_small is none of the names.

    Raises:
        CheckpointError: what is recorded is no backbone.
    """
    settings = checkpoint.get("config")
    told = settings.get("backbone") if isinstance(settings, dict) else None
    if told is None:
        arch = checkpoint.get("arch")
        return BackboneConfig(arch) if isinstance(arch, str) and arch in BACKBONES else None
    try:
        backbone = BackboneConfig(**told)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} records no backbone of this program: {error}") from error
    weights, sizes = backbone.weights, backbone.patch_sizes
    if not isinstance(weights, str | None) or not (sizes is None or _are_sizes(sizes)):
        raise CheckpointError(
            f"{path} records no backbone of this program: weights {weights!r}, patch sizes {sizes!r}"
        )
    return backbone


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(size, int) and size > 0 for size in value)
