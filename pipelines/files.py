"""Paths and device numbers in the form that DALI takes."""

import os

import numpy as np
import torch


def path_bytes(path: str | os.PathLike[str]) -> np.ndarray:
    """Encode a path for `fn.io.file.read`: the file system's bytes, (n,) uint8."""
    return np.frombuffer(os.fsencode(path), np.uint8)


def device_id(device: torch.device) -> int | None:
    """Return the number of a CUDA device; None for the CPU."""
    if device.type == "cpu":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
