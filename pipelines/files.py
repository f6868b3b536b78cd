"""What DALI is told of files and devices."""

import os

import numpy as np
import torch


def path_bytes(path: str | os.PathLike[str]) -> np.ndarray:
    """A path the way `fn.io.file.read` takes it: the file system's bytes, as (n,) uint8."""
    return np.frombuffer(os.fsencode(path), np.uint8)


def device_id(device: torch.device) -> int | None:
    """The number of a CUDA device; None for the CPU."""
    if device.type == "cpu":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
