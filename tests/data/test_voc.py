import pytest

from hcl.data.voc import CLASS_NAMES, open_voc, palette

LISTS = "ImageSets/Segmentation"


def relative(root, sample):
    return sample.image.relative_to(root).as_posix(), sample.label.relative_to(root).as_posix()


@pytest.mark.parametrize("split", ["train", "val"])
def test_ids_of_train_and_val_have_their_masks_in_segmentation_class(tmp_path, write_split, split):
    write_split(tmp_path / LISTS / f"{split}.txt", "2007_000033", "", "2007_000042")
    dataset = open_voc(tmp_path, split)
    assert [relative(tmp_path, sample) for sample in dataset.samples] == [
        ("JPEGImages/2007_000033.jpg", "SegmentationClass/2007_000033.png"),
        ("JPEGImages/2007_000042.jpg", "SegmentationClass/2007_000042.png"),
    ]
    assert [sample.origin for sample in dataset.samples] == [f"{split}.txt:1", f"{split}.txt:3"]
    assert len(dataset.class_names) == 21 == len(CLASS_NAMES)


@pytest.mark.parametrize("asked", ["trainaug", "train_aug", "trainaug.txt"])
@pytest.mark.parametrize("there", ["trainaug", "train_aug"])
def test_both_names_of_trainaug_open_either_file(tmp_path, write_split, asked, there):
    write_split(tmp_path / LISTS / f"{there}.txt", "2008_000008")
    (sample,) = open_voc(tmp_path, asked).samples
    assert relative(tmp_path, sample) == (
        "JPEGImages/2008_000008.jpg",
        "SegmentationClassAug/2008_000008.png",
    )
    assert sample.origin == f"{there}.txt:1"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_line_may_name_image_and_mask(tmp_path, write_split, slash):
    write_split(tmp_path / LISTS / "val.txt", f"{slash}JPEGImages/a.jpg {slash}Masks/a.png")
    (sample,) = open_voc(tmp_path, "val").samples
    assert relative(tmp_path, sample) == ("JPEGImages/a.jpg", "Masks/a.png")


@pytest.mark.parametrize("line", ["../../secret", "../a.jpg SegmentationClass/a.png", "a.jpg x/../../b.png"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path, write_split, line):
    write_split(tmp_path / LISTS / "val.txt", line)
    with pytest.raises(ValueError, match=r"val\.txt:1.*leaves"):
        open_voc(tmp_path, "val")


def test_a_line_of_three_fields_is_refused(tmp_path, write_split):
    write_split(tmp_path / LISTS / "val.txt", "a", "a b c")
    with pytest.raises(ValueError, match=r"val\.txt:2.*'a b c'"):
        open_voc(tmp_path, "val")


def test_a_missing_split_names_the_splits_that_exist(tmp_path, write_split):
    write_split(tmp_path / LISTS / "val.txt", "a")
    write_split(tmp_path / LISTS / "train.txt", "a")
    with pytest.raises(FileNotFoundError, match=r"trainaug\.txt; the folder has the splits train, val"):
        open_voc(tmp_path, "trainaug")


def test_an_empty_split_is_refused(tmp_path, write_split):
    write_split(tmp_path / LISTS / "val.txt", "", "  ")
    with pytest.raises(ValueError, match=r"val\.txt is empty"):
        open_voc(tmp_path, "val")


def test_palette_is_the_one_of_vocs_masks():
    colors = [tuple(palette()[3 * i : 3 * i + 3]) for i in (0, 1, 2, 8, 15, 20, 255)]
    assert colors == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (64, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
        (224, 224, 192),
    ]


def test_every_class_but_the_background_is_an_object(tmp_path, write_split):
    write_split(tmp_path / LISTS / "val.txt", "a")
    assert open_voc(tmp_path, "val").object_classes == tuple(range(1, 21))
    assert open_voc(tmp_path, "val", "scenes", ("background", "car")).object_classes == (1,)
