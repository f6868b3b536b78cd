"""Checkpoints: written whole or not at all, read without executing anything."""

from pathlib import Path
from typing import Any

import torch

from hcl.files import written_whole
from hcl.models.weights import CheckpointError, read_checkpoint

FORMAT = 1


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` to ``path``, whole or not at all."""
    with written_whole(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save_checkpoint` wrote.

    Raises:
        CheckpointError: the file is damaged, would execute code, or is no training checkpoint of ours.
    """
    state = read_checkpoint(path)
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a training checkpoint of this program: its format is {state.get('format')!r}, "
            f"not {FORMAT}"
        )
    return state


def changed_settings(saved: dict[str, Any], current: dict[str, Any], free: frozenset[str]) -> list[str]:
    """The settings that differ, as ``name: saved -> current``; those named in ``free`` may."""
    before, now = _flat(saved), _flat(current)
    return [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in free and before.get(name) != now.get(name)
    ]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
