import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hcl.data.checks import check_images
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.samples import read_label
from hcl.data.scenes import CLASS_NAMES, COLORS, HOMES, LOOKS, OBJECTS, draw_scene, write_scenes


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


OPEN = """
import sys, time
from functools import partial
from pathlib import Path
from hcl.data import dataset, scenes
from hcl.data.samples import read_label
dataset.write_scenes = partial(scenes.write_scenes, train=int(sys.argv[3]), val=2, size=64)
root, go = map(Path, sys.argv[1:3])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
opened = dataset.open_dataset(dataset.DataConfig("scenes", str(root), "train"))
print(len([read_label(sample, opened) for sample in opened.samples]))
"""


def start_opening(root, go, train):
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(root), str(go), str(train)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_write_the_same_scenes_at_once_leave_them_whole(tmp_path):
    write_scenes(tmp_path / "alone", train=12, val=2, size=64)
    processes = [start_opening(tmp_path / "shared", tmp_path / "go", 12) for _ in range(5)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "12\n"), err
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "shared", "go"}


def test_scenes_that_another_process_finishes_meanwhile_are_used(tmp_path, monkeypatch):
    def second_of_two(root):
        write_scenes(root, 4, 2, 64)
        write_scenes(root, 4, 2, 64)

    monkeypatch.setattr("hcl.data.dataset.write_scenes", second_of_two)
    assert len(open_dataset(DataConfig("scenes", str(tmp_path / "scenes"), "train"))) == 4


def test_a_process_killed_while_writing_leaves_no_scenes_that_are_not_whole(tmp_path):
    root, go = tmp_path / "scenes", tmp_path / "go"
    process = start_opening(root, go, 5000)
    assert process.stdout.readline() == "ready\n"
    go.touch()
    while not list(tmp_path.glob(".scenes-*/JPEGImages/*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert not root.exists()
    write_scenes(root, train=12, val=2, size=64)
    assert len(list((root / "JPEGImages").iterdir())) == 14


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
    behind = {look for homes in HOMES.values() for pair in homes for look in pair}
    for parts in OBJECTS.values():
        looks = {part.look for part in parts}
        assert len(looks) >= 2
        assert looks <= set(LOOKS) - behind


def test_colour_alone_tells_no_class():
    behind = {LOOKS[look].color for homes in HOMES.values() for pair in homes for look in pair}
    objects = {name: {LOOKS[part.look].color for part in parts} for name, parts in OBJECTS.items()}
    for color in COLORS:
        users = [name for name, colors in objects.items() if color in colors]
        assert len(users) + (color in behind) >= 2, color


def test_looks_of_one_colour_differ_in_texture():
    seen = [(look.color, look.texture) for look in LOOKS.values()]
    assert len(seen) == len(set(seen))


def test_the_light_differs_from_scene_to_scene():
    means = [draw_scene(64, np.random.default_rng(seed))[0].mean() for seed in range(20)]
    assert max(means) > 1.5 * min(means)


def test_every_object_has_a_home():
    assert HOMES.keys() == OBJECTS.keys()
    assert {look for homes in HOMES.values() for pair in homes for look in pair} <= LOOKS.keys()


def test_no_scene_is_in_both_splits(tmp_path):
    write_scenes(tmp_path / "scenes", train=3, val=3, size=32)
    pictures = [path.read_bytes() for path in (tmp_path / "scenes" / "JPEGImages").iterdir()]
    assert len(set(pictures)) == 6
