"""A trained model as its checkpoint describes it: backbone, head, banks of centroids."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hcl.clustering.mogo import ClusteringConfig
from hcl.data.dataset import DataConfig
from hcl.engine.config import config_from
from hcl.engine.step import LossConfig
from hcl.models.backbones import build_backbone
from hcl.models.head_files import Branch, is_pretrained, read_head_checkpoint
from hcl.models.pm_vit import PMViT
from hcl.models.recorded_backbone import BackboneOverride
from hcl.models.seg_head import SegHead
from hcl.models.trained_head import trained_head
from hcl.models.weights import CheckpointError

BANKS = ("centroids_foreground", "centroids_background")


class TrainedModel(NamedTuple):
    """The content of a checkpoint, on the CPU.

    Attributes:
        backbone: frozen backbone with its weights loaded.
        head: head of the requested branch.
        centroids: (K_fg, C) and (K_bg, C) float32, raw, of the foreground's and the background's bank; None
            if the file has none.
        keep_mass: share of the attention that is foreground; the published one if the file records none.
        temperature: temperature of the softmax over centroids; likewise.
        data: what the head was trained on; None if the file does not record it.
    """

    backbone: PMViT
    head: SegHead
    centroids: tuple[Tensor, Tensor] | None
    keep_mass: float
    temperature: float
    data: DataConfig | None


def open_trained(
    path: str | Path,
    *,
    backbone: str | None = None,
    weights: str | Path | None = None,
    patch_sizes: list[int] | None = None,
    branch: Branch = "momentum",
    heads: int | None = None,
) -> TrainedModel:
    """Read a checkpoint of this program, a published one or one in the Hub's format, and its backbone.

    Args:
        path: file of the checkpoint; or a folder in the Hub's format or its ``.safetensors`` file, which hold
            a head and no clusters.
        backbone: name of the backbone; by default the one that the checkpoint records. Published checkpoints
            record none.
        weights: file with the backbone's weights; by default the one that the checkpoint records, or a
            download.
        patch_sizes: patch sizes of the levels; by default the checkpoint's, or the backbone's usual ones.
        branch: which of the two heads.
        heads: number of attention heads of the head's block, if the checkpoint does not record it: published
            ones do not, and have 12; for a ``.safetensors`` file alone it is required.

    Raises:
        FileNotFoundError: the checkpoint or the backbone's weights are missing.
        CheckpointError: a file is damaged, would execute code, or holds something else; or the number of
            attention heads is neither given nor recorded.
        ValueError: the backbone is unknown, is neither given nor recorded in the checkpoint, or differs from
            the recorded one.
    """
    checkpoint = read_head_checkpoint(path)
    whole = "config" in checkpoint and not is_pretrained(path)
    recorded = config_from(checkpoint["config"], Path(path)) if whole else None
    asked = BackboneOverride(backbone, None if weights is None else str(weights), patch_sizes)
    trained = trained_head(checkpoint, path, branch, backbone=asked, heads=heads)
    return TrainedModel(
        build_backbone(trained.backbone),
        trained.head,
        _centroids(checkpoint, trained.head.config.projection_dim, path),
        trained.keep_mass or ClusteringConfig.keep_mass,
        (recorded.loss if recorded else LossConfig()).temperature,
        recorded.data if recorded else None,
    )


def _centroids(checkpoint: dict[str, Any], channels: int, path: str | Path) -> tuple[Tensor, Tensor] | None:
    if all(checkpoint.get(name) is None for name in BANKS):
        return None
    foreground, background = (_bank(checkpoint.get(name), name, channels, path) for name in BANKS)
    return foreground, background


def _bank(bank: Any, name: str, channels: int, path: str | Path) -> Tensor:
    if not isinstance(bank, Tensor) or bank.ndim != 2 or not len(bank) or bank.shape[1] != channels:
        found = tuple(bank.shape) if isinstance(bank, Tensor) else type(bank).__name__
        raise CheckpointError(f"{path} holds no valid clusters: {name} is {found}, not (K, {channels})")
    if not torch.isfinite(bank).all():
        raise CheckpointError(f"{path} holds no valid clusters: {name} has values that are not finite")
    return bank.float()
