"""Which backbone a head was trained on: as its checkpoint records, or as settings complete or override it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcl.models.backbones import BACKBONES, BackboneConfig
from hcl.models.weights import CheckpointError


@dataclass
class BackboneOverride:
    """Settings of the backbone that complete or override those that a checkpoint records.

    Args:
        name: name of the backbone; by default the checkpoint's. A published checkpoint names none, so it must
            be given; without a checkpoint it is dino_vits16 by default.
        weights: file with the backbone's state dict; by default the file that training used, or else the
            project's own weights or the backbone authors', which are downloaded.
        patch_sizes: patch sizes of the levels in pixels; by default the checkpoint's, or else the usual ones.
    """

    name: str | None = None
    weights: str | None = None
    patch_sizes: list[int] | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            BackboneConfig(self.name)  # refuses unknown names

    def without_checkpoint(self) -> BackboneConfig:
        """The backbone to use if there is no checkpoint that records one."""
        return BackboneConfig(self.name or BackboneConfig.name, self.weights, self.patch_sizes)


def chosen_backbone(checkpoint: dict[str, Any], path: str | Path, asked: BackboneOverride) -> BackboneConfig:
    """Return the recorded backbone, with the weights and patch sizes that ``asked`` gives instead.

    Args:
        checkpoint: content of the checkpoint.
        path: file that it came from, for error messages.
        asked: settings that complete or override the recorded ones.

    Raises:
        ValueError: the backbone is neither given nor recorded, or the given one is not the recorded one.
        FileNotFoundError: the recorded weights are not there, and no others are given.
        CheckpointError: what is recorded is not a backbone.
    """
    own = recorded_backbone(checkpoint, path)
    if own is None:
        if asked.name is None:
            raise ValueError(
                f"{path} does not record which backbone it was trained on: give --backbone.name, such as "
                "dino_vits16"
            )
        return BackboneConfig(asked.name, asked.weights, asked.patch_sizes)
    if asked.name not in (None, own.name):
        raise ValueError(
            f"{path} was trained on the backbone {own.name}, not on {asked.name}: leave out "
            f"--backbone.name, or choose a checkpoint of {asked.name}"
        )
    if asked.weights is None and own.weights is not None and not Path(own.weights).is_file():
        raise FileNotFoundError(
            f"{path} was trained on the backbone weights {own.weights}, which do not exist: give their "
            "path with --backbone.weights"
        )
    return BackboneConfig(own.name, asked.weights or own.weights, asked.patch_sizes or own.patch_sizes)


def recorded_backbone(checkpoint: dict[str, Any], path: str | Path) -> BackboneConfig | None:
    """Return the backbone that a checkpoint records: in its settings, or as a known name under ``arch``.

    None if it records neither; an ``arch`` such as vit_small is not a name of this project.

    Raises:
        CheckpointError: what is recorded is not a backbone.
    """
    settings = checkpoint.get("config")
    told = settings.get("backbone") if isinstance(settings, dict) else None
    if told is None:
        arch = checkpoint.get("arch")
        return BackboneConfig(arch) if isinstance(arch, str) and arch in BACKBONES else None
    try:
        backbone = BackboneConfig(**told)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not record a valid backbone: {error}") from error
    weights, sizes = backbone.weights, backbone.patch_sizes
    if not isinstance(weights, str | None) or not (sizes is None or _are_sizes(sizes)):
        raise CheckpointError(
            f"{path} does not record a valid backbone: weights {weights!r}, patch sizes {sizes!r}"
        )
    return backbone


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(size, int) and size > 0 for size in value)
