"""Photographs in, object components out: the trained model as a library, and the commands that use it.

``Segmenter.open("runs/voc/checkpoint.pt")("photo.jpg")`` is all it takes; `Parts` describes the result.
"""

from hcl.inference.segmenter import Parts, Segmenter
from hcl.inference.trained_model import TrainedModel, open_trained

__all__ = ["Parts", "Segmenter", "TrainedModel", "open_trained"]
