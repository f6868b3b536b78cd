"""DALI's names (``fn``, ``types``, ...), imported on first use: only code that reads images needs DALI."""

from importlib import import_module
from typing import Any


def require() -> Any:
    """Import DALI; if it is missing, the ModuleNotFoundError says how to install it."""
    try:
        return import_module("nvidia.dali")
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "reading images for training and evaluation needs NVIDIA DALI, which is not installed: "
            "pip install '.[cpu]' in the project's folder, or '.[cuda12]' or '.[cuda13]' for a GPU"
        ) from missing


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(require(), name)
