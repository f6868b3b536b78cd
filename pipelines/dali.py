"""DALI's names (``fn``, ``types``, ...), imported when first asked for: only what reads images needs it."""

from importlib import import_module
from typing import Any


def require() -> Any:
    """The package itself; ModuleNotFoundError with the way out where it is not installed."""
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
