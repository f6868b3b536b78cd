import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcl.data.checks import check_images, faulty_samples, image_problem
from hcl.data.folder import open_folder
from hcl.data.samples import Dataset, Sample


def dataset_of(*paths, labels=None):
    labels = labels or [None] * len(paths)
    return Dataset(
        "d", [Sample(p, m, f"s.txt:{i}") for i, (p, m) in enumerate(zip(paths, labels, strict=True), 1)]
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
def test_whole_images_pass(tmp_path, write_image, suffix):
    check_images(dataset_of(write_image(tmp_path / f"a.{suffix}")))


def test_a_missing_image_is_named_with_its_line(tmp_path, write_image):
    good = write_image(tmp_path / "good.jpg")
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg does not exist \(s\.txt:2\)"):
        check_images(dataset_of(good, tmp_path / "gone.jpg"))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_named_with_its_line(tmp_path, write_image, suffix, share):
    path = write_image(tmp_path / f"cut.{suffix}", 200, 160)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} is not a complete image.*\(s\.txt:1\)"):
        check_images(dataset_of(path))


def test_bytes_after_the_end_marker_are_no_fault(tmp_path, write_image):
    path = write_image(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert image_problem(path) is None


def test_an_empty_file_and_a_text_are_named(tmp_path):
    empty, text = tmp_path / "empty.jpg", tmp_path / "text.jpg"
    empty.touch()
    text.write_text("hello " * 100)
    with pytest.raises(ValueError, match=r"empty\.jpg is empty[^\n]*\n.*text\.jpg is not a complete image"):
        check_images(dataset_of(empty, text))


def test_many_faults_are_counted(tmp_path):
    with pytest.raises(FileNotFoundError, match="and 15 more"):
        check_images(dataset_of(*(tmp_path / f"{i}.jpg" for i in range(25))))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["open", "stat"])
def test_no_image_is_at_fault_where_the_machine_is(tmp_path, write_image, monkeypatch, number, call):
    write_image(tmp_path / "a.jpg")
    dataset = open_folder(tmp_path)

    def fails(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, call, fails)
    for look in (check_images, faulty_samples):
        with pytest.raises(OSError, match=r"a\.jpg") as raised:
            look(dataset)
        assert raised.value.errno == number


def test_no_image_at_all_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        check_images(dataset_of())


def test_masks_are_looked_at_only_when_asked_for(tmp_path, write_image, write_mask):
    image = write_image(tmp_path / "a.jpg")
    dataset = dataset_of(image, labels=[tmp_path / "a.png"])
    check_images(dataset)
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        check_images(dataset, labels=True)
    write_mask(tmp_path / "a.png", np.zeros((30, 40)))
    check_images(dataset, labels=True)


def test_a_whole_image_is_not_decoded(tmp_path, write_image, monkeypatch):
    path = write_image(tmp_path / "a.jpg")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert image_problem(path) is None


def test_images_of_one_name_in_different_folders_are_different_images(tmp_path, write_image):
    dataset = dataset_of(*(write_image(tmp_path / folder / "1.jpg") for folder in "ab"))
    check_images(dataset)
    assert not faulty_samples(dataset)


def test_ten_faults_are_all_that_there_are(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        check_images(dataset_of(*(tmp_path / f"{i}.jpg" for i in range(10))))
    assert "more" not in str(raised.value)
