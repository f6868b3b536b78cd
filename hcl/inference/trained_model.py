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
    """What a checkpoint holds, on the CPU.

    Attributes:
        backbone: frozen, its weights loaded.
        head: of the branch that was asked for.
        centroids: (K_fg, C) and (K_bg, C) float32, raw, of the foreground's and the background's bank; None
            where the file has none.
        keep_mass: share of the attention that is foreground; the published one where the file does not say.
        temperature: of the softmax over centroids; likewise.
        data: what the head was trained on; None where the file does not say.
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
    """Read a checkpoint of this program, a published one or the Hub's form, and the backbone it stands on.

    Args:
        path: of the checkpoint; or of the folder in the Hub's form or its ``.safetensors``, which hold a head
            and no clusters.
        backbone: its name; by default the one that the checkpoint names. Published files name none.
        weights: file with the backbone's weights; by default where the checkpoint found them, or downloaded.
        patch_sizes: of the levels; by default the checkpoint's, or the usual ones of the backbone.
        branch: which of the two heads.
        heads: attention heads of the head's block, where the checkpoint does not tell: published ones do not,
            and have 12; of a ``.safetensors`` alone it must be said.

    Raises:
        FileNotFoundError: the checkpoint or the backbone's weights are missing.
        CheckpointError: a file is damaged, would execute code, or holds something else; or nobody says how
            many heads a block has.
        ValueError: the backbone is unknown, neither given nor named by the checkpoint, or given as another
            than the checkpoint's.
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
        raise CheckpointError(f"{path} holds no clusters: {name} is {found}, not (K, {channels})")
    if not torch.isfinite(bank).all():
        raise CheckpointError(f"{path} holds no clusters: {name} has values that are not finite")
    return bank.float()
