"""What a data set is made of, and how one label mask is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

IGNORE = 255


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, the mask that labels it (or None), and the line of the split that named them."""

    image: Path
    label: Path | None
    origin: str


@dataclass(frozen=True)
class Dataset:
    """Samples in the order of their split.

    `label_map` translates the 256 values a mask can hold into class ids, or into `ignore_index`; a value that
    stands for nothing is left at or above `len(class_names)`, so that reading it is an error. None: masks
    hold class ids. `object_classes` are the classes that are objects, what a foreground map should find; none
    where the data set has none or does not say.
    """

    name: str
    samples: Sequence[Sample]
    class_names: tuple[str, ...] = ()
    ignore_index: int = IGNORE
    label_map: np.ndarray | None = None
    object_classes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labelled(self) -> bool:
        """Whether every image has a mask."""
        return all(sample.label is not None for sample in self.samples)


def read_label(sample: Sample, dataset: Dataset) -> np.ndarray:
    """The class ids of one image's mask, (H, W) uint8, at the image's size; `ignore_index` where unlabelled.

    Raises ValueError, naming the files, where the sample has no mask, the mask is not made of indices, holds
    a value that is no class, or differs from its image in size.
    """
    if sample.label is None:
        raise ValueError(
            f"{sample.image} ({sample.origin}) has no label mask: this data set is for training only"
        )
    with Image.open(sample.label) as mask:
        if mask.mode not in ("L", "P"):
            raise ValueError(
                f"{sample.label}: a mask holds class ids (8-bit grey or palette), this is {mask.mode}"
            )
        values = np.array(mask)
    _check_size(sample, values)
    classes = values if dataset.label_map is None else dataset.label_map[values]
    _check_values(sample, values, classes, dataset)
    return classes


def _check_size(sample: Sample, values: np.ndarray) -> None:
    with Image.open(sample.image) as image:
        width, height = image.size
    if values.shape != (height, width):
        raise ValueError(
            f"{sample.label} is {values.shape[1]}x{values.shape[0]}, but its image {sample.image} is "
            f"{width}x{height} ({sample.origin})"
        )


def _check_values(sample: Sample, values: np.ndarray, classes: np.ndarray, dataset: Dataset) -> None:
    known = len(dataset.class_names)
    occurring = np.flatnonzero(np.bincount(classes.ravel(), minlength=256))
    if np.any((occurring >= known) & (occurring != dataset.ignore_index)):
        wrong = np.unique(values[(classes >= known) & (classes != dataset.ignore_index)])
        raise ValueError(
            f"{sample.label} holds the values {wrong.tolist()}, which are none of the {known} classes"
        )
