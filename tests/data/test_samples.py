from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcl.data.samples import Dataset, Sample, read_label

CLASSES = ("background", "thing")


@pytest.fixture
def sample(tmp_path, write_image):
    return Sample(write_image(tmp_path / "a.jpg", 3, 2), tmp_path / "a.png", "val.txt:4")


def test_a_palette_mask_is_read_as_indices(sample, write_mask):
    values = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
    write_mask(sample.label, values)
    np.testing.assert_array_equal(read_label(sample, Dataset("d", [sample], CLASSES)), values)


def test_another_size_than_the_image_names_both_files_and_sizes(sample, write_mask):
    write_mask(sample.label, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"a\.png is 2x3, .*a\.jpg is 3x2 \(val\.txt:4\)"):
        read_label(sample, Dataset("d", [sample], CLASSES))


def test_a_value_beyond_the_classes_is_refused(sample, write_mask):
    write_mask(sample.label, np.full((2, 3), 2))
    with pytest.raises(ValueError, match=r"a\.png.*\[2\].*2 classes"):
        read_label(sample, Dataset("d", [sample], CLASSES))


def test_colours_are_no_labels(sample):
    Image.new("RGB", (3, 2)).save(sample.label)
    with pytest.raises(ValueError, match=r"a\.png.*RGB"):
        read_label(sample, Dataset("d", [sample], CLASSES))


def test_without_a_mask_there_is_nothing_to_read(sample):
    bare = Sample(sample.image, None, "a.jpg")
    dataset = Dataset("d", [bare])
    assert not dataset.labelled
    with pytest.raises(ValueError, match="no label mask"):
        read_label(bare, dataset)


@pytest.mark.parametrize(("most", "kept"), [(1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_fewer_samples_are_spread_over_all(most, kept):
    samples = [Sample(Path(str(number)), None, "") for number in range(5)]
    few = Dataset("made", samples, ("a", "b")).spread_out(most)
    assert [sample.image.name for sample in few.samples] == [str(number) for number in kept]
    assert few.class_names == ("a", "b")


def test_the_digest_tells_images_of_one_name_in_different_folders_apart():
    one, other = (
        Dataset("d", [Sample(Path(root, folder, "1.jpg"), None, f"{folder}/1.jpg") for folder in folders])
        for root, folders in (("x", "ab"), ("y", "ab"))
    )
    assert one.digest == other.digest
    turned = Dataset("d", one.samples[::-1])
    moved = Dataset("d", [Sample(sample.image, None, f"c/{sample.origin}") for sample in one.samples])
    assert len({one.digest, turned.digest, moved.digest}) == 3
