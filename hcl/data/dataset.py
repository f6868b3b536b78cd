"""Opening a data set of any kind from its configuration."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hcl.bounds import require_at_least
from hcl.data.checks import OnError
from hcl.data.coco import Group, open_coco
from hcl.data.folder import open_folder, open_labelled_folder
from hcl.data.samples import IGNORE, Dataset
from hcl.data.scenes import CLASS_NAMES as SCENE_CLASSES
from hcl.data.scenes import write_scenes
from hcl.data.voc import open_voc


@dataclass(frozen=True)
class DataConfig:
    """Which images to open.

    Args:
        kind: `voc`, `coco`, `folder` (any images; labelled where masks are given) or `scenes` (generated at
            `root` when nothing is there).
        root: the data set's folder.
        split: name of the split: `trainaug`, `val`, ... for voc; `train`, `val` for scenes; a list's name,
            `train2017` or `val2017` for coco. A folder of images has none; with masks, it may be a sub-folder
            that images and masks both have.
        classes: for coco, whether all 27 classes count, or only things, or only stuff.
        on_error: what to do about files that cannot be used: "raise" stops before anything runs and names
            them; "skip" decodes every file first, leaves out the bad ones and reports how many and which.
        limit: for a quick look, use only this many images of each split that is opened, spread evenly over
            its list, because lists are often sorted; scores state the number. By default all.
        masks: for folder, the folder of its masks: for `a/b.jpg` below root, `a/b.png` below this folder.
        mask_classes: number of classes in these masks: ids count from 0, the background, and 255 marks pixels
            that do not count.
    """

    kind: Literal["voc", "coco", "folder", "scenes"]
    root: str
    split: str = ""
    classes: Group = "all"
    on_error: OnError = "raise"
    limit: int | None = None
    masks: str | None = None
    mask_classes: int | None = None

    def __post_init__(self) -> None:
        require_at_least(1, self, "limit", prefix="data.")
        self._check_masks()
        if self.kind == "folder" and self.split and not self.labelled:
            raise ValueError(
                f"a folder of images has no split, got split={self.split!r}: give a sub-folder as --data.root"
            )
        if self.kind != "folder" and not self.split:
            raise ValueError(
                f"a data set of kind {self.kind!r} needs a split: give one, such as --data.split train"
            )
        if self.kind != "coco" and self.classes != "all":
            raise ValueError(f"classes={self.classes!r} is for kind 'coco' only, got kind {self.kind!r}")

    def _check_masks(self) -> None:
        if self.masks is not None and self.kind != "folder":
            raise ValueError(f"masks={self.masks!r} is for kind 'folder' only, got kind {self.kind!r}")
        if (self.masks is None) != (self.mask_classes is None):
            raise ValueError(
                f"masks and mask_classes must be given together, got masks={self.masks!r} and "
                f"mask_classes={self.mask_classes}"
            )
        if self.mask_classes is not None and not 2 <= self.mask_classes <= IGNORE:
            raise ValueError(
                f"data.mask_classes is {self.mask_classes}; it must lie between 2 and {IGNORE}: masks hold "
                f"class ids below it, or {IGNORE} where a pixel does not count"
            )

    @property
    def labelled(self) -> bool:
        """Whether there are masks."""
        return self.kind != "folder" or self.masks is not None


def open_dataset(config: DataConfig) -> Dataset:
    """Open the data set of a configuration, but none of its images (see `hcl.data.checks`).

    If a limit leaves out images, the name of the data set says so.

    Raises:
        FileNotFoundError: root, folder or split is missing; the splits that exist are named.
        ValueError: the split is empty or malformed.
    """
    dataset = _open_whole(config)
    if config.limit is None or config.limit >= len(dataset):
        return dataset
    name = f"{config.limit} of the {len(dataset)} images of {dataset.name}"
    return replace(dataset.spread_out(config.limit), name=name)


def _open_whole(config: DataConfig) -> Dataset:
    root = Path(config.root).expanduser()
    if config.kind == "scenes":
        if not root.exists():
            with suppress(FileExistsError):  # another process was faster
                write_scenes(root)
        return open_voc(root, config.split, "scenes", SCENE_CLASSES)
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: give the folder of the data set ({config.kind}) as --data.root"
        )
    if config.kind == "voc":
        return open_voc(root, config.split)
    if config.kind == "coco":
        return open_coco(root, config.split, config.classes)
    if config.masks is None or config.mask_classes is None:
        return open_folder(root)
    masks = Path(config.masks).expanduser()
    return open_labelled_folder(root / config.split, masks / config.split, config.mask_classes)
