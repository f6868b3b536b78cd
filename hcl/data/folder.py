"""Any folder of images, without labels or with a folder of masks."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hcl.data.samples import IGNORE, Dataset, Sample

SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def open_folder(root: Path) -> Dataset:
    """Open all images below `root`, sorted by relative path; hidden files and folders are left out.

    Links to files are followed, links to folders are not (they may form loops).

    Raises:
        FileNotFoundError: the folder is not there, or holds no image.
        OSError: a folder cannot be listed.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    names = sorted(path.relative_to(root).as_posix() for path in _images_below(root))
    if not names:
        raise FileNotFoundError(
            f"there is no image in {root} or its sub-folders (looked for {', '.join(sorted(SUFFIXES))})"
        )
    return Dataset(f"folder-{root.name}", [Sample(root / name, None, name) for name in names])


def open_labelled_folder(root: Path, masks: Path, classes: int) -> Dataset:
    """Open the images of `open_folder`, each with the mask of its name: `root/a/b.jpg`, `masks/a/b.png`.

    Masks hold the ids 0 to `classes` - 1, and 255 where a pixel does not count. Every class except the first,
    the background, is an object.

    Raises:
        FileNotFoundError, OSError: as `open_folder`, or there is no folder of masks.
        ValueError: the masks lie below `root`, or two images would share one.
    """
    images = open_folder(root)
    if not masks.is_dir():
        raise FileNotFoundError(f"there is no folder {masks}: give the folder of the masks as --data.masks")
    if masks.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"the folder of masks {masks} lies in {root}, whose images would include the masks: move it"
        )
    samples = [
        replace(sample, label=masks / Path(sample.origin).with_suffix(".png")) for sample in images.samples
    ]
    _refuse_shared_masks(samples)
    names = tuple(f"class {number}" for number in range(classes))
    objects = tuple(range(1, classes))
    return Dataset(images.name, samples, names, label_map=_label_map(classes), object_classes=objects)


def _refuse_shared_masks(samples: list[Sample]) -> None:
    first: dict[Path | None, Sample] = {}
    for sample in samples:
        if (other := first.setdefault(sample.label, sample)) is not sample:
            raise ValueError(
                f"{other.origin} and {sample.origin} would share the mask {sample.label}: rename one of them"
            )


def _label_map(classes: int) -> np.ndarray:
    """(256,) uint8: keeps class ids and maps all values that are none to `classes`, which is no class either.

    Cached labels are keyed by this table too, so they are not reused for another number of classes.
    """
    table = np.minimum(np.arange(256), classes).astype(np.uint8)
    table[IGNORE] = IGNORE
    return table


def _images_below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _raise(error: OSError) -> None:
    raise error
