import numpy as np
import pytest

from hcl.data.coco import CLASS_NAMES, FINE_TO_COARSE, THINGS, label_map_of, open_coco
from hcl.data.samples import read_label


@pytest.mark.parametrize(
    ("split", "line", "folder"),
    [
        ("Coco164kFull_Stuff_Coarse", "000000000009", "train2017"),
        ("Coco164kFull_Stuff_Coarse_7.txt", "000000000009", "val2017"),
        ("cocostuff10k", "COCO_train2014_000000000009", "train2017"),
    ],
)
def test_every_list_leads_to_its_folder(tmp_path, write_split, split, line, folder):
    write_split(tmp_path / f"{split.removesuffix('.txt')}.txt", line)
    (sample,) = open_coco(tmp_path, split).samples
    assert sample.image == tmp_path / folder / "000000000009.jpg"
    assert sample.label == tmp_path / "stuffthingmaps_trainval2017" / folder / "000000000009.png"


def test_a_folder_is_a_split_in_the_order_of_names(tmp_path, write_image):
    for name in ("7", "3", "5"):
        write_image(tmp_path / "val2017" / f"{name}.jpg")
    assert [sample.image.stem for sample in open_coco(tmp_path, "val2017").samples] == ["3", "5", "7"]


def test_what_is_not_there_is_named(tmp_path, write_split):
    write_split(tmp_path / "cocostuff10k.txt", "a")
    with pytest.raises(FileNotFoundError, match="the folder has the splits cocostuff10k"):
        open_coco(tmp_path, "Coco164kFull_Stuff_Coarse")
    with pytest.raises(FileNotFoundError, match="train2017"):
        open_coco(tmp_path, "train2017")
    with pytest.raises(ValueError, match=r"'test2017'.*cocostuff10k"):
        open_coco(tmp_path, "test2017")


def test_the_map_covers_182_fine_and_27_coarse_classes():
    assert len(FINE_TO_COARSE) == 182
    assert set(FINE_TO_COARSE) == set(range(27)) == set(range(len(CLASS_NAMES)))
    for fine, name in [(0, "person"), (16, "animal"), (91, "textile"), (105, "sky"), (181, "solid")]:
        assert CLASS_NAMES[FINE_TO_COARSE[fine]] == name


@pytest.fixture
def one_sample(tmp_path, write_image, write_mask):
    def open_with(values, group="all"):
        values = np.array(values, np.uint8)
        write_image(tmp_path / "val2017" / "a.jpg", *values.shape[::-1])
        write_mask(tmp_path / "stuffthingmaps_trainval2017" / "val2017" / "a.png", values)
        dataset = open_coco(tmp_path, "val2017", group)
        return dataset, dataset.samples[0]

    return open_with


@pytest.mark.parametrize(
    ("group", "classes", "expected"),
    [("all", 27, [9, 11, 23, 255]), ("things", 12, [9, 11, 255, 255]), ("stuff", 15, [255, 255, 11, 255])],
)
def test_labels_become_coarse(one_sample, group, classes, expected):
    dataset, sample = one_sample([[0, 2, 105, 255]], group)
    assert len(dataset.class_names) == classes
    np.testing.assert_array_equal(read_label(sample, dataset), [expected])


def test_a_value_that_is_no_fine_id_names_the_file(one_sample):
    dataset, sample = one_sample([[0, 182], [200, 255]])
    with pytest.raises(ValueError, match=r"a\.png.*\[182, 200\]"):
        read_label(sample, dataset)


@pytest.mark.parametrize(("group", "objects"), [("all", 12), ("things", 12), ("stuff", 0)])
def test_things_are_the_objects(one_sample, group, objects):
    dataset, _ = one_sample([[0]], group)
    assert dataset.object_classes == tuple(range(objects))


def test_things_are_grouped_as_coco_groups_them():
    """COCO's categories lie side by side in its ids, those that were left out in the end included."""
    groups = [
        *(("person", 1), ("vehicle", 8), ("outdoor", 6), ("animal", 10), ("accessory", 8), ("sports", 10)),
        *(("kitchen", 8), ("food", 10), ("furniture", 10), ("electronic", 6), ("appliance", 6)),
        ("indoor", 8),
    ]
    expected = [name for name, count in groups for _ in range(count)]
    assert [CLASS_NAMES[coarse] for coarse in FINE_TO_COARSE[:91]] == expected
    assert min(FINE_TO_COARSE[91:]) == THINGS == 12


def test_every_fine_class_of_another_group_is_ignored():
    for group, first, last in (("all", 0, 27), ("things", 0, 12), ("stuff", 12, 27)):
        expected = [coarse - first if first <= coarse < last else 255 for coarse in FINE_TO_COARSE]
        assert label_map_of(group).tolist() == [*expected, *range(182, 256)]
