import numpy as np
import pytest

from hcl.data.checks import check_images
from hcl.data.dataset import DataConfig, open_dataset, read_label
from hcl.data.scenes import BACKGROUNDS, CLASS_NAMES, LOOKS, OBJECTS, draw_scene, write_scenes


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_arguments_write_the_same_files(tmp_path):
    for name in ("a", "b"):
        write_scenes(tmp_path / name, train=3, val=2, size=64, seed=1)
    write_scenes(tmp_path / "c", train=3, val=2, size=64, seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") != contents(tmp_path / "c")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}  # and no draft is left


def test_missing_scenes_are_written_and_open_like_voc(tmp_path, monkeypatch):
    monkeypatch.setattr("hcl.data.dataset.write_scenes", lambda root: write_scenes(root, 4, 2, 64))
    root = str(tmp_path / "deep" / "scenes")
    dataset = open_dataset(DataConfig("scenes", root, "train"))
    check_images(dataset, labels=True)
    assert len(dataset) == 4
    assert dataset.class_names == CLASS_NAMES
    labels = [read_label(sample, dataset) for sample in dataset.samples]
    assert all(label.shape == (64, 64) and label.any() for label in labels)
    assert len(open_dataset(DataConfig("scenes", root, "val"))) == 2


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("hcl.data.scenes.draw_scene", lambda size, rng: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_scenes(tmp_path / "scenes", train=1, val=1, size=64)
    assert not list(tmp_path.iterdir())


def test_what_exists_is_not_overwritten(tmp_path):
    with pytest.raises(FileExistsError, match="delete"):
        write_scenes(tmp_path)
    with pytest.raises(ValueError, match="train=0"):
        write_scenes(tmp_path / "scenes", train=0)


def test_every_class_occurs_in_front_of_a_background():
    counts = np.zeros(len(CLASS_NAMES))
    for seed in range(40):
        image, classes = draw_scene(64, np.random.default_rng(seed))
        assert image.shape == (64, 64, 3)
        counts += np.bincount(classes.ravel(), minlength=len(CLASS_NAMES)) > 0
    assert (counts > 0).all()
    assert counts[0] == 40


def test_objects_have_several_looks_none_of_them_a_background():
    behind = {look for pair in BACKGROUNDS for look in pair}
    for parts in OBJECTS.values():
        looks = {part.look for part in parts}
        assert len(looks) >= 2
        assert looks <= set(LOOKS) - behind
