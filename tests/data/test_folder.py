import numpy as np
import pytest

from hcl.data.checks import check_images
from hcl.data.folder import open_folder, open_labelled_folder
from hcl.data.samples import read_label


def test_images_are_found_recursively_and_sorted_without_labels(tmp_path, write_image):
    for name in ("b/2.png", "b/10.JPG", "a.jpeg", ".hidden/x.jpg", "b/.x.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = open_folder(tmp_path)
    assert [sample.origin for sample in dataset.samples] == ["a.jpeg", "b/10.JPG", "b/2.png"]
    assert not dataset.labelled


def test_no_folder_and_no_image_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no image"):
        open_folder(tmp_path)


@pytest.fixture
def mine(tmp_path, write_image, write_mask):
    """Two photographs of 40x30 pixels and their masks of three classes."""
    for name in ("b/2.jpg", "a.jpeg"):
        write_image(tmp_path / "images" / name)
    values = np.zeros((30, 40), np.uint8)
    values[3:9], values[9:12] = 2, 255
    for name in ("b/2.png", "a.png"):
        write_mask(tmp_path / "masks" / name, values)
    return tmp_path


def test_masks_are_named_as_the_images_are(mine):
    dataset = open_labelled_folder(mine / "images", mine / "masks", 3)
    assert dataset.labelled
    assert [sample.label for sample in dataset.samples] == [mine / "masks/a.png", mine / "masks/b/2.png"]
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.object_classes == (1, 2)
    check_images(dataset, labels=True)
    assert np.unique(read_label(dataset.samples[0], dataset)).tolist() == [0, 2, 255]


def test_a_value_that_is_no_class_is_named(mine):
    dataset = open_labelled_folder(mine / "images", mine / "masks", 2)
    with pytest.raises(
        ValueError, match=r"a\.png holds the values \[2\], which are not ids of the 2 classes"
    ):
        read_label(dataset.samples[0], dataset)


def test_a_mask_that_is_missing_is_named_with_its_image(mine):
    (mine / "masks/b/2.png").unlink()
    dataset = open_labelled_folder(mine / "images", mine / "masks", 3)
    with pytest.raises(FileNotFoundError, match=r"masks/b/2\.png .*\(b/2\.jpg\)"):
        check_images(dataset, labels=True)


def test_a_mask_of_another_size_is_named_with_its_image(mine, write_mask):
    write_mask(mine / "masks/a.png", np.zeros((40, 30)))
    dataset = open_labelled_folder(mine / "images", mine / "masks", 3)
    with pytest.raises(ValueError, match=r"a\.png is 30x40, but its image .*a\.jpeg is 40x30"):
        read_label(dataset.samples[0], dataset)


def test_folders_of_masks_that_cannot_be_meant_are_refused(mine, write_image):
    with pytest.raises(
        FileNotFoundError,
        match=r"there is no folder .*nowhere: give the folder of the masks as --data\.masks",
    ):
        open_labelled_folder(mine / "images", mine / "nowhere", 3)
    with pytest.raises(ValueError, match="whose images would include the masks"):
        open_labelled_folder(mine, mine / "masks", 3)
    write_image(mine / "images/a.png")
    with pytest.raises(ValueError, match=r"a\.jpeg and a\.png would share the mask .*a\.png"):
        open_labelled_folder(mine / "images", mine / "masks", 3)


def test_every_value_that_stands_for_nothing_is_the_first_that_is_no_class(mine):
    """So kept labels are not taken for those of another number of classes."""
    maps = [open_labelled_folder(mine / "images", mine / "masks", classes).label_map for classes in (3, 4)]
    assert maps[0].tolist() == [0, 1, 2, *[3] * 252, 255]
    assert maps[1].tolist() == [0, 1, 2, 3, *[4] * 251, 255]
