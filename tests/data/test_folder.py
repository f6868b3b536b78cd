import pytest

from hcl.data.folder import open_folder


def test_images_are_found_recursively_and_sorted_without_labels(tmp_path, write_image):
    for name in ("b/2.png", "b/10.JPG", "a.jpeg", ".hidden/x.jpg"):
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
