"""Hierarchical Context Learning of object components for unsupervised semantic segmentation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hcl.inference import Parts, Segmenter

__all__ = ["Parts", "Segmenter", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public names on first access, because importing torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hcl import inference

    return getattr(inference, name)
