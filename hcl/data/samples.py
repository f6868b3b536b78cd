"""Data sets and their samples, and reading a label mask."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hcl.data.images import BadImageError, opened, shown, stored_as

IGNORE = 255
_INDICES = frozenset(("L", "P", "P;1", "P;2", "P;4"))  # PNGs whose values Pillow returns as they are stored


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, the mask that labels it (or None), and the line of the split that named them."""

    image: Path
    label: Path | None
    origin: str


@dataclass(frozen=True)
class Dataset:
    """Samples in the order of their split.

    `label_map` translates the 256 values that a mask can hold into class ids or `ignore_index`; a value
    without a meaning is mapped to at least `len(class_names)`, so that reading it is an error. Without a
    `label_map`, masks hold class ids. `object_classes` are the classes that are objects, which a foreground
    map should find; empty if the data set has none or does not say. `skipped` says what is wrong with each
    sample that was left out as unusable.
    """

    name: str
    samples: Sequence[Sample]
    class_names: tuple[str, ...] = ()
    ignore_index: int = IGNORE
    label_map: np.ndarray | None = None
    object_classes: tuple[int, ...] = ()
    skipped: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def digest(self) -> str:
        """SHA-256 of the names and the order of the images, wherever the data set is stored."""
        lines = (f"{sample.image.name}\0{sample.origin}\n" for sample in self.samples)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()

    @property
    def labelled(self) -> bool:
        """Whether every image has a mask."""
        return all(sample.label is not None for sample in self.samples)

    def spread_out(self, most: int) -> "Dataset":
        """Return at most `most` samples, in their order and spread evenly over all of them."""
        return replace(self, samples=[self.samples[index] for index in spread_out(len(self), most)])


def spread_out(images: int, most: int) -> np.ndarray:
    """Return at most `most` image indices, ascending and spread evenly over all images."""
    return np.linspace(0, images - 1, min(most, images)).round().astype(int)


def read_label(sample: Sample, dataset: Dataset) -> np.ndarray:
    """Read an image's mask: class ids (H, W) uint8 at the image's size, `ignore_index` where unlabelled.

    Raises:
        ValueError: the sample has no mask, or the mask cannot be read, is not a PNG of 8-bit grey values or
            of palette indices (another format may have changed them), holds a value that is no class, or
            differs from its image in size; the message names the files.
    """
    if sample.label is None:
        raise ValueError(
            f"{shown(sample.image)} ({shown(sample.origin)}) has no label mask: this data set is for "
            "training only"
        )
    values = _mask_values(sample)
    _check_size(sample, values)
    classes = values if dataset.label_map is None else dataset.label_map[values]
    _check_values(sample, values, classes, dataset)
    return classes


def _mask_values(sample: Sample) -> np.ndarray:
    """What the mask's file holds, (H, W) uint8."""
    assert sample.label is not None
    try:
        with opened(sample.label) as mask:
            if mask.format != "PNG" or stored_as(mask) not in _INDICES:
                raise BadImageError(
                    f"is a {mask.format} stored as {stored_as(mask)}: a mask must be a PNG that holds "
                    "class ids as 8-bit grey values or palette indices"
                )
            mask.verify()  # all checksums: Pillow ignores those of the pixels when it decodes
        with opened(sample.label) as mask:
            return np.array(mask)
    except BadImageError as error:
        raise ValueError(f"{shown(sample.label)} {error} ({shown(sample.origin)})") from error


def _check_size(sample: Sample, values: np.ndarray) -> None:
    try:
        with opened(sample.image) as image:
            width, height = image.size
    except BadImageError as error:
        raise ValueError(f"{shown(sample.image)} {error} ({shown(sample.origin)})") from error
    if values.shape != (height, width):
        raise ValueError(
            f"{shown(sample.label)} is {values.shape[1]}x{values.shape[0]}, but its image "
            f"{shown(sample.image)} is {width}x{height} ({shown(sample.origin)})"
        )


def _check_values(sample: Sample, values: np.ndarray, classes: np.ndarray, dataset: Dataset) -> None:
    known = len(dataset.class_names)
    occurring = np.flatnonzero(np.bincount(classes.ravel(), minlength=256))
    if np.any((occurring >= known) & (occurring != dataset.ignore_index)):
        wrong = np.unique(values[(classes >= known) & (classes != dataset.ignore_index)])
        raise ValueError(
            f"{shown(sample.label)} holds the values {wrong.tolist()}, which are not ids of the {known} "
            f"classes ({shown(sample.origin)})"
        )
