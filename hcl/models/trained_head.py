"""A trained head as its file describes it: weights, backbone, and the share that was foreground."""

from pathlib import Path
from typing import Any, NamedTuple

from hcl.models.backbones import BackboneConfig
from hcl.models.head_files import Branch, seg_head_of
from hcl.models.recorded_backbone import BackboneOverride, chosen_backbone
from hcl.models.seg_head import SegHead
from hcl.models.weights import CheckpointError


class TrainedHead(NamedTuple):
    """A head, and what is needed to use it.

    Attributes:
        head: head of the chosen branch, on the CPU.
        backbone: the backbone that it was trained on, not loaded yet.
        keep_mass: share of the attention that was foreground in training; None if it is not recorded.
    """

    head: SegHead
    backbone: BackboneConfig
    keep_mass: float | None


def trained_head(
    checkpoint: dict[str, Any],
    path: str | Path,
    branch: Branch = "momentum",
    *,
    backbone: BackboneOverride,
    heads: int | None = None,
) -> TrainedHead:
    """Build the head that `hcl.models.head_files.read_head_checkpoint` has read.

    Args:
        checkpoint: content of the checkpoint.
        path: file that it came from, for error messages.
        branch: which of the two heads.
        backbone: settings of the backbone that complete or override the recorded ones.
        heads: as in `hcl.models.head_files.load_seg_head`.

    Raises:
        FileNotFoundError, ValueError: as `chosen_backbone`.
        CheckpointError: the file holds something else, or does not record what must then be given.
    """
    chosen = chosen_backbone(checkpoint, path, backbone)
    head = seg_head_of(checkpoint, path, branch, heads=heads)
    return TrainedHead(head, chosen, recorded_keep_mass(checkpoint, path))


def recorded_keep_mass(checkpoint: dict[str, Any], path: str | Path) -> float | None:
    """Return the share of the attention that was foreground in training; None if it is not recorded.

    Raises:
        CheckpointError: what is recorded is not such a share.
    """
    settings = checkpoint.get("config")
    told = settings.get("clustering") if isinstance(settings, dict) else None
    if told is None:
        return None
    share = told.get("keep_mass") if isinstance(told, dict) else told
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise CheckpointError(
            f"{path} records {share!r} as keep_mass, which is not a share of the attention in (0, 1]"
        )
    return share
