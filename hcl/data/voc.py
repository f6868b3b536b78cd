"""PASCAL VOC 2012 segmentation (PVOC), with the `trainaug` extension.

Layout: `JPEGImages/*.jpg`, `SegmentationClass/*.png`, `SegmentationClassAug/*.png` (the masks of `trainaug`),
`ImageSets/Segmentation/*.txt`.
"""

from pathlib import Path

import numpy as np

from hcl.data.samples import Dataset, Sample
from hcl.data.splits import inside, read_split

CLASS_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)
AUGMENTED = ("trainaug", "train_aug")


def open_voc(
    root: Path, split: str, name: str = "voc", class_names: tuple[str, ...] = CLASS_NAMES
) -> Dataset:
    """Open the images of `ImageSets/Segmentation/{split}.txt`: lines are ids, or image paths and mask paths.

    `trainaug` and `train_aug` are two names of one split. Every class except the first, the background, is an
    object.

    Raises:
        FileNotFoundError: as `read_split`.
        ValueError: as `read_split`; or a line has neither form, or a path outside the root.
    """
    split = split.removesuffix(".txt")
    names = (split, *(other for other in AUGMENTED if split in AUGMENTED and other != split))
    wrong_root = (
        f"{root} has no lists in ImageSets/Segmentation: give the folder that contains ImageSets and "
        "JPEGImages as --data.root, or use --data.kind folder for a folder of photographs"
    )
    lines = read_split(root / "ImageSets" / "Segmentation", names, elsewhere=wrong_root)
    masks = "SegmentationClassAug" if split in AUGMENTED else "SegmentationClass"
    samples = [_sample(root, fields, masks, origin) for fields, origin in lines]
    objects = tuple(range(1, len(class_names)))
    return Dataset(f"{name}-{split}", samples, class_names, object_classes=objects)


def _sample(root: Path, fields: list[str], masks: str, origin: str) -> Sample:
    if len(fields) == 1:
        fields = [f"JPEGImages/{fields[0]}.jpg", f"{masks}/{fields[0]}.png"]
    if len(fields) != 2:
        raise ValueError(
            f"{origin}: expected an id, or an image path and a mask path; got {' '.join(fields)!r}"
        )
    image, label = (inside(root, field, origin) for field in fields)
    return Sample(image, label, origin)


def palette() -> list[int]:
    """The colours of VOC's masks, 256 x (red, green, blue).

    An id's bits, from the lowest on, go to the channels in turn and fill each from its highest bit down.
    """
    ids = np.arange(256)[:, None]
    bits = [(ids >> (3 * digit + np.arange(3)) & 1) << (7 - digit) for digit in range(3)]
    return np.sum(bits, axis=0).ravel().tolist()
