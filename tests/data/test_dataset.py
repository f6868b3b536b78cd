import os
from dataclasses import replace
from pathlib import Path

import pytest

from hcl.data.checks import check_images
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.samples import read_label

REAL = os.environ.get("HCL_DATA")
real_data = pytest.mark.skipif(not REAL, reason="HCL_DATA does not name a folder of real data")


def test_kinds_open_their_layouts(tmp_path, write_image, write_split):
    write_split(tmp_path / "ImageSets/Segmentation/train.txt", "a")
    write_split(tmp_path / "cocostuff10k.txt", "COCO_train2014_1")
    write_image(tmp_path / "JPEGImages/a.jpg")
    names = [
        open_dataset(DataConfig(kind, str(tmp_path), split)).name
        for kind, split in [("voc", "train"), ("coco", "cocostuff10k"), ("folder", "")]
    ]
    assert names == ["voc-train", "coco-cocostuff10k", f"folder-{tmp_path.name}"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "folder", "split": "val"}, "'val'"),
        ({"kind": "voc"}, "'voc' needs a split"),
        ({"kind": "voc", "split": "val", "classes": "stuff"}, "'stuff'"),
        ({"kind": "voc", "split": "val", "limit": 0}, "data.limit is 0; it must be at least 1"),
        ({"kind": "voc", "split": "val", "masks": "m", "mask_classes": 3}, "masks='m' is for kind 'folder'"),
        ({"kind": "folder", "masks": "m"}, "masks and mask_classes must be given together"),
        ({"kind": "folder", "mask_classes": 3}, "masks and mask_classes must be given together"),
        ({"kind": "folder", "masks": "m", "mask_classes": 1}, "mask_classes is 1; it must lie between 2"),
        ({"kind": "folder", "masks": "m", "mask_classes": 256}, "mask_classes is 256; it must lie between 2"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(root="/data", **settings)


def test_a_limit_spreads_over_the_split_and_is_in_the_name(tmp_path, write_split):
    write_split(tmp_path / "ImageSets/Segmentation/val.txt", *"abcde")
    quick = open_dataset(DataConfig("voc", str(tmp_path), "val", limit=3))
    assert [sample.image.stem for sample in quick.samples] == ["a", "c", "e"]
    assert quick.name == "3 of the 5 images of voc-val"
    whole = open_dataset(DataConfig("voc", str(tmp_path), "val", limit=5))
    assert (whole.name, len(whole)) == ("voc-val", 5)


def test_a_split_of_a_folder_with_masks_is_a_sub_folder_of_both(tmp_path, write_image):
    for name in ("images/train/a.jpg", "images/val/b.jpg", "masks/val/b.png"):
        write_image(tmp_path / name)
    masks = str(tmp_path / "masks")
    own = DataConfig("folder", str(tmp_path / "images"), "val", masks=masks, mask_classes=3)
    (sample,) = open_dataset(own).samples
    assert (sample.image, sample.label) == (tmp_path / "images/val/b.jpg", tmp_path / "masks/val/b.png")
    with pytest.raises(FileNotFoundError, match=r"no folder .*images/test"):
        open_dataset(replace(own, split="test"))


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_dataset(DataConfig("voc", str(tmp_path / "nowhere"), "val"))


@real_data
@pytest.mark.parametrize(
    ("kind", "folder", "split", "count", "classes"),
    [
        ("voc", "voc2012-subset", "trainaug", 400, 21),
        ("voc", "voc2012-subset", "val", 445, 21),
        ("coco", "coco-subset", "cocostuff10k", 100, 27),
        ("coco", "coco-subset", "Coco164kFull_Stuff_Coarse_7", 100, 27),
    ],
)
def test_real_data_is_whole_and_its_labels_are_classes(kind, folder, split, count, classes):
    dataset = open_dataset(DataConfig(kind, str(Path(REAL) / folder), split))
    assert (len(dataset), len(dataset.class_names)) == (count, classes)
    check_images(dataset, labels=True)
    for sample in dataset.samples[:20]:
        read_label(sample, dataset)
