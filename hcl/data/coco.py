"""COCO-Stuff with its 27 coarse classes (HCL, section 8).

Layout: `train2017/*.jpg`, `val2017/*.jpg`, `stuffthingmaps_trainval2017/{train2017,val2017}/*.png`, and the
lists `Coco164kFull_Stuff_Coarse.txt` (train), `Coco164kFull_Stuff_Coarse_7.txt` (val), `cocostuff10k.txt`
(train).
"""

from pathlib import Path
from typing import Literal

import numpy as np

from hcl.data.samples import IGNORE, Dataset, Sample
from hcl.data.splits import inside, read_split

CLASS_NAMES = (
    *("electronic", "appliance", "food", "furniture", "indoor", "kitchen", "accessory", "animal", "outdoor"),
    *("person", "sports", "vehicle", "ceiling", "floor", "food-stuff", "furniture-stuff", "raw-material"),
    *("textile", "wall", "window", "building", "ground", "plant", "sky", "solid", "structural", "water"),
)
THINGS = 12  # the coarse classes before this id are things, the others stuff

_COARSE = """
9 11 11 11 11 11 11 11 11 8 8 8 8 8 8 7 7 7 7 7 7 7 7 7 7 6 6 6 6 6 6 6 6 10 10 10 10 10 10 10 10 10
10 5 5 5 5 5 5 5 5 2 2 2 2 2 2 2 2 2 2 3 3 3 3 3 3 3 3 3 3 0 0 0 0 0 0 1 1 1 1 1 1 4 4 4 4 4 4 4 4
17 17 22 20 20 22 15 25 16 13 12 12 17 17 23 15 15 17 15 21 15 25 13 13 13 13 13 22 26 14 14 15 22
21 21 24 20 22 15 17 16 15 22 24 21 17 25 16 21 17 22 16 21 21 25 21 26 21 24 20 17 14 21 26 15 23
20 21 24 15 24 22 25 15 20 17 17 22 14 18 18 18 18 18 18 18 26 26 19 19 24
"""
FINE_TO_COARSE = tuple(int(coarse) for coarse in _COARSE.split())  # of every fine id, 0 to 181
_IMAGES_OF = {
    "Coco164kFull_Stuff_Coarse": "train2017",
    "Coco164kFull_Stuff_Coarse_7": "val2017",
    "cocostuff10k": "train2017",
}
Group = Literal["all", "things", "stuff"]


def open_coco(root: Path, split: str, group: Group = "all") -> Dataset:
    """Open the images of one of the three lists or, with `train2017` or `val2017`, all images of that folder.

    Args:
        root: the data set's folder.
        split: the list or the folder.
        group: keeps the 27 coarse classes, or only the 12 of things or the 15 of stuff (counted from 0), and
            ignores the rest; the things are the objects.

    Raises:
        FileNotFoundError: the list or folder is not there.
        ValueError: the split is unknown, or a line has several names or one that leaves the root.
    """
    split = split.removesuffix(".txt")
    if split in _IMAGES_OF:
        folder = _IMAGES_OF[split]
        lines = read_split(root, [split])
        samples = [_sample(root, folder, _name(fields, origin), origin) for fields, origin in lines]
    elif split in _IMAGES_OF.values():
        samples = _whole_folder(root, split)
    else:
        known = ", ".join([*_IMAGES_OF, "train2017", "val2017"])
        raise ValueError(f"COCO-Stuff has no split {split!r}; it has {known}")
    return Dataset(
        f"coco-{split}",
        samples,
        class_names_of(group),
        label_map=label_map_of(group),
        object_classes=() if group == "stuff" else tuple(range(THINGS)),
    )


def class_names_of(group: Group) -> tuple[str, ...]:
    """The coarse classes of a group, in the order of their ids."""
    return {"all": CLASS_NAMES, "things": CLASS_NAMES[:THINGS], "stuff": CLASS_NAMES[THINGS:]}[group]


def label_map_of(group: Group) -> np.ndarray:
    """(256,) uint8: the class of every mask value: 255 if ignored, the value itself if it is no fine id."""
    coarse = np.array(FINE_TO_COARSE)
    table = np.arange(256)
    first, last = {"all": (0, 27), "things": (0, THINGS), "stuff": (THINGS, 27)}[group]
    table[: len(coarse)] = np.where((coarse >= first) & (coarse < last), coarse - first, IGNORE)
    return table.astype(np.uint8)


def _name(fields: list[str], origin: str) -> str:
    if len(fields) != 1:
        raise ValueError(f"{origin}: expected the name of one image, got {' '.join(fields)!r}")
    return fields[0].rpartition("_")[2]


def _sample(root: Path, folder: str, name: str, origin: str) -> Sample:
    image = inside(root, f"{folder}/{name}.jpg", origin)
    return Sample(image, inside(root, f"stuffthingmaps_trainval2017/{folder}/{name}.png", origin), origin)


def _whole_folder(root: Path, folder: str) -> list[Sample]:
    names = sorted(path.stem for path in (root / folder).glob("*.jpg"))
    if not names:
        raise FileNotFoundError(f"no .jpg image in {root / folder}")
    return [_sample(root, folder, name, f"{folder}/{name}.jpg") for name in names]
