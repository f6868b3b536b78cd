"""Reading weights that others saved (HCL, section 9), without ever executing what a file holds."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hcl.models.seg_head import SegHead, SegHeadConfig

State = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint file cannot be used; the message names the file and the reason."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint's dict onto the CPU; only tensors and plain containers are accepted.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, holds something other than a dict, or would execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch wraps the reason in advice to load the file unsafely.
        reason = error.__context__ if isinstance(error.__context__, pickle.UnpicklingError) else error
        raise CheckpointError(
            f"{path} was refused ({_first_sentence(reason)}): only tensors and plain containers are read, "
            "because anything else could execute code"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {_first_sentence(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return content


def load_into(module: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Copy a state dict into a module, which keeps its dtype and device.

    Raises:
        CheckpointError: keys are missing, unknown or of another shape; the message lists them.
    """
    expected = module.state_dict()
    problems = [
        *(
            f"{key} is {_describe(state[key])} in the file, {tuple(tensor.shape)} in the model"
            for key, tensor in expected.items()
            if key in state and getattr(state[key], "shape", None) != tensor.shape
        ),
        *(f"{key} is missing" for key in expected if key not in state),
        *(f"{key} is unknown" for key in state if key not in expected),
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit this {type(module).__name__}: {_listed(problems)}")
    module.load_state_dict(state)


def load_seg_head(
    path: str | Path, branch: Literal["momentum", "online"] = "momentum", *, heads: int = 12
) -> SegHead:
    """Rebuild a SegHead from a published ``hcl_*.pth.tar`` or a checkpoint of this project.

    Args:
        path: a checkpoint with ``momentum_seg_head`` and ``online_seg_head``.
        branch: which of the two.
        heads: attention heads of a transformer block, the one figure that the tensors' shapes do not tell; a
            checkpoint of this project records it, and then that counts.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint` and `load_into`.
    """
    checkpoint = read_checkpoint(path)
    heads = checkpoint.get("config", {}).get("head", {}).get("heads", heads)
    state = _section(checkpoint, f"{branch}_seg_head", path)
    try:
        width, in_features = state["multi_scale_fuser.weight"].shape
        hidden = len(state["projection_head.0.bias"])
        projection_dim = len(state["projection_head.4.bias"])
    except KeyError as error:
        raise CheckpointError(f"{path} holds no SegHead: {error.args[0]} is missing") from error
    kind: Literal["block", "mlp"] = "block" if "seg_head.attn.qkv.weight" in state else "mlp"
    head = SegHead(in_features, SegHeadConfig(kind, width, hidden, projection_dim, heads))
    load_into(head, state, path)
    return head


def load_linear_classifier(path: str | Path) -> nn.Conv2d:
    """Rebuild the 1x1 convolution of a ``linear_classifier_*.pth.tar``: component tokens to classes.

    Raises:
        FileNotFoundError, CheckpointError: as `read_checkpoint` and `load_into`.
    """
    state = _section(read_checkpoint(path), "linear_classifier", path)
    weight = state.get("weight")
    if not isinstance(weight, Tensor) or weight.shape[2:] != (1, 1):
        raise CheckpointError(f"{path} holds no 1x1 convolution: weight is {_describe(weight)}")
    classifier = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1)
    load_into(classifier, state, path)
    return classifier


def _section(checkpoint: dict[str, Any], name: str, path: str | Path) -> State:
    """One state dict of a checkpoint, without the prefix that DistributedDataParallel adds."""
    section = checkpoint.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{path} has no {name}; it holds {_listed(map(str, checkpoint))}")
    return {key.removeprefix("module."): tensor for key, tensor in section.items()}


def _describe(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _listed(items: Iterable[str], most: int = 8) -> str:
    items = list(items)
    rest = len(items) - most
    return "; ".join(items[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _first_sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
