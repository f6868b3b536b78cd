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
    """The images of `ImageSets/Segmentation/{split}.txt`: a line is an id, or an image path and a mask path.

    `trainaug` and `train_aug` are two names of one split. Every class but the first, background, is an
    object.

    Raises:
        FileNotFoundError: as `read_split`.
        ValueError: likewise, or a line is in neither form or has a path outside the root.
    """
    split = split.removesuffix(".txt")
    names = (split, *(other for other in AUGMENTED if split in AUGMENTED and other != split))
    wrong_root = (
        f"the root must be the folder that holds ImageSets and JPEGImages, and {root} holds no list in "
        "ImageSets/Segmentation; a folder of photographs is of --data.kind folder"
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
    """The colours of VOC's masks, 256 x (red, green, blue): an id's bits, dealt in turn from the highest."""
    ids = np.arange(256)[:, None]
    bits = [(ids >> (3 * digit + np.arange(3)) & 1) << (7 - digit) for digit in range(3)]
    return np.sum(bits, axis=0).ravel().tolist()
