"""Load SegHeads and linear classifiers: from this project's files, published ones, and Hub folders."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.weights import (
    CheckpointError,
    State,
    described,
    first_sentence,
    listed,
    load_into,
    read_checkpoint,
    refuse_run,
    require_fit,
)

Branch = Literal["momentum", "online"]
"""The two heads of a checkpoint: the moving average, and the one that the optimiser trained."""
PRETRAINED_WEIGHTS = "model.safetensors"
"""The weights file of a folder in the format of Hugging Face's Hub."""


def load_seg_head(path: str | Path, branch: Branch = "momentum", *, heads: int | None = None) -> SegHead:
    """Rebuild a SegHead from a published ``hcl_*.pth.tar``, a checkpoint of this project or a Hub folder.

    Args:
        path: a checkpoint with ``momentum_seg_head`` and ``online_seg_head``; or a folder in the Hub's format
            (`hcl.models.pretrained`) or its ``.safetensors`` file alone, both of which hold one of the two.
        branch: which of the two.
        heads: attention heads of a transformer block, the only number that the tensors' shapes do not give.
            If a checkpoint of this project or a config.json records it, that number is used. Published
            checkpoints do not record it and have 12. For a ``.safetensors`` file alone it must be given.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint` and `load_into`; or the number of a block's
            heads is neither recorded nor given.
    """
    return seg_head_of(read_head_checkpoint(path), path, branch, heads=heads)


def read_head_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read any file or folder that `load_seg_head` accepts, laid out as a checkpoint of this project.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint`; or it is a backbone's file.
    """
    read = _read_pretrained(Path(path)) if is_pretrained(path) else read_checkpoint(path)
    heads = [held for name, held in read.items() if str(name).endswith("_seg_head")]
    if any("cls_token" in held for held in heads or [read] if isinstance(held, dict)):
        raise CheckpointError(
            f"{path} holds a backbone and no trained head: give it as --backbone.weights, and a head's "
            "checkpoint as --checkpoint"
        )
    return read


def is_pretrained(path: str | Path) -> bool:
    """Whether a path is read in the Hub's format: a head, perhaps a few settings, and nothing else."""
    return Path(path).is_dir() or Path(path).suffix == ".safetensors"


def seg_head_of(
    checkpoint: dict[str, Any],
    path: str | Path,
    branch: Branch = "momentum",
    *,
    heads: int | None = None,
) -> SegHead:
    """Do as `load_seg_head` for a checkpoint that was already read; ``path`` is named in errors."""
    state = _section(checkpoint, f"{branch}_seg_head", path)
    width, in_features = _shape(state, "multi_scale_fuser.weight", 2, path)
    (hidden,) = _shape(state, "projection_head.0.bias", 1, path)
    (projection_dim,) = _shape(state, "projection_head.4.bias", 1, path)
    kind: Literal["block", "mlp"] = "block" if "seg_head.attn.qkv.weight" in state else "mlp"
    recorded = _recorded_heads(checkpoint)
    known = heads if recorded is None else recorded
    if known is None:
        if kind == "block" and is_pretrained(path):
            raise CheckpointError(
                f"{path} does not record how many attention heads its block has: give --heads, such as 12"
            )
        known = SegHeadConfig.heads
    try:
        config = SegHeadConfig(kind, width, hidden, projection_dim, known)
        with torch.device("meta"):  # no memory yet: short vectors could demand huge matrices
            head = SegHead(in_features, config)
    except ValueError as error:
        raise CheckpointError(f"{path} holds no SegHead: {error}") from error
    require_fit(head, state, path)
    head.to_empty(device="cpu").load_state_dict(state)
    return head


def load_linear_classifier(path: str | Path) -> nn.Conv2d:
    """Rebuild the 1x1 convolution of a ``linear_classifier_*.pth.tar``: component tokens to classes.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint` and `load_into`.
    """
    state = _section(read_checkpoint(path, "linear classifier"), "linear_classifier", path)
    weight = state.get("weight")
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.shape[2:] != (1, 1) or not weight.numel():
        raise CheckpointError(f"{path} holds no 1x1 convolution: weight is {described(weight)}")
    classifier = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1)
    load_into(classifier, state, path)
    return classifier


def _read_pretrained(path: Path) -> dict[str, Any]:
    """Read a head in the Hub's format, laid out as a checkpoint."""
    file = path / PRETRAINED_WEIGHTS if path.is_dir() else path
    if not file.exists():
        refuse_run(path)
    state = read_checkpoint(file)
    settings: Any = {}
    if (told := file.with_name("config.json")).is_file():
        try:
            settings = json.loads(told.read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{told} cannot be read as JSON: {first_sentence(error)}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{told} holds a {type(settings).__name__}, not a mapping of settings")
    backbone = None
    if "backbone" in settings:
        backbone = {"name": settings["backbone"], "patch_sizes": settings.get("patch_sizes")}
    keep_mass = settings.get("keep_mass")
    clustering = None if keep_mass is None else {"keep_mass": keep_mass}
    return {
        f"{settings.get('branch', 'momentum')}_seg_head": state,
        "config": {"head": settings.get("shape"), "backbone": backbone, "clustering": clustering},
    }


def _section(checkpoint: dict[str, Any], name: str, path: str | Path) -> State:
    """One state dict of a checkpoint, without the prefix that DistributedDataParallel adds."""
    section = checkpoint.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{path} has no {name}; it holds {listed(map(str, checkpoint))}")
    return {str(key).removeprefix("module."): tensor for key, tensor in section.items()}


def _shape(state: State, key: str, dimensions: int, path: str | Path) -> tuple[int, ...]:
    value = state.get(key)
    if not isinstance(value, Tensor) or value.ndim != dimensions or not value.numel():
        found = "missing" if value is None else described(value)
        raise CheckpointError(f"{path} holds no SegHead: {key} is {found}")
    return tuple(value.shape)


def _recorded_heads(checkpoint: dict[str, Any]) -> int | None:
    """The number of attention heads in a checkpoint of this project; published ones do not record it."""
    section: Any = checkpoint
    for name in ("config", "head", "heads"):
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, int) else None
