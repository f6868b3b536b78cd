"""A trained head as its file describes it: weights, the backbone that it stands on, what was foreground."""

from pathlib import Path
from typing import Any, NamedTuple

from hcl.models.backbones import BackboneConfig
from hcl.models.head_files import Branch, seg_head_of
from hcl.models.recorded_backbone import BackboneOverride, chosen_backbone
from hcl.models.seg_head import SegHead
from hcl.models.weights import CheckpointError


class TrainedHead(NamedTuple):
    """A head, and what it needs to be of use.

    Attributes:
        head: of the branch that was asked for, on the CPU.
        backbone: which one it stands on; not opened yet.
        keep_mass: share of the attention that was foreground in training; None where the file does not say.
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
    """What `hcl.models.head_files.read_head_checkpoint` has read, as a head.

    Args:
        checkpoint: that was read.
        path: where it came from, for errors.
        branch: which of the two heads.
        backbone: what is said of it besides.
        heads: as in `hcl.models.head_files.load_seg_head`.

    Raises:
        FileNotFoundError, ValueError: as `chosen_backbone`.
        CheckpointError: the file holds something else, or leaves open what must be said.
    """
    chosen = chosen_backbone(checkpoint, path, backbone)
    head = seg_head_of(checkpoint, path, branch, heads=heads)
    return TrainedHead(head, chosen, recorded_keep_mass(checkpoint, path))


def recorded_keep_mass(checkpoint: dict[str, Any], path: str | Path) -> float | None:
    """The share of the attention that was foreground in training; None where it is not recorded.

    Raises:
        CheckpointError: what is recorded is no such share.
    """
    settings = checkpoint.get("config")
    told = settings.get("clustering") if isinstance(settings, dict) else None
    if told is None:
        return None
    share = told.get("keep_mass") if isinstance(told, dict) else told
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise CheckpointError(
            f"{path} records no share of the attention as foreground: keep_mass is {share!r}"
        )
    return share
