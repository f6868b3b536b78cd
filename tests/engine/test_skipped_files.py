"""Training over files that cannot be used, left out on request."""

import json
import shutil
from pathlib import Path

import pytest

from hcl.commands import evaluate, train
from tests.engine.support import arguments, records


@pytest.fixture
def damaged_root(scenes_root, tmp_path) -> Path:
    """Scenes of which two training images and one validation mask are damaged."""
    root = Path(shutil.copytree(scenes_root, tmp_path / "damaged"))
    first, second = sorted((root / "JPEGImages").glob("train*"))[:2]
    first.write_bytes(first.read_bytes()[:-400])
    second.write_text("<html>")
    mask = min((root / "SegmentationClass").glob("val*"))
    mask.write_bytes(mask.read_bytes()[:-30])
    return root


def test_training_goes_on_without_them_and_says_which(tiny_settings, damaged_root, capsys):
    settings = tiny_settings | {"data.root": str(damaged_root), "epochs": 1, "data.on_error": "skip"}
    assert train.main(arguments(settings)) == 0
    (record,) = records(settings["output"], "skipped")
    assert record["count"] == 2
    assert "train_00000.jpg is not a complete image" in record["files"][0]
    assert "train_00001.jpg is not a complete image" in record["files"][1]
    printed = capsys.readouterr().err
    assert "10 images, 2 steps per epoch" in printed
    assert "2 images could not be used; they are listed in " in printed


def test_a_run_is_not_continued_on_other_images(tiny_settings, damaged_root, scenes_root, capsys):
    settings = tiny_settings | {"data.root": str(damaged_root), "epochs": 1, "data.on_error": "skip"}
    assert train.main(arguments(settings)) == 0
    repaired = settings | {"data.root": str(scenes_root), "epochs": 2}
    assert train.main([*arguments(repaired), "--resume"]) == 2
    assert "a run on 10 images, which are not the 12 images of this run" in capsys.readouterr().err


def test_evaluation_goes_on_without_images_whose_masks_are_damaged(damaged_root, tmp_path, caplog):
    command = [
        *("overcluster", "--data.kind", "scenes", "--data.root", str(damaged_root), "--data.split", "val"),
        *(
            "--backbone.name",
            "tiny",
            "--tokens",
            "backbone",
            "--output",
            str(tmp_path / "out"),
            "--device",
            "cpu",
        ),
        *("--size", "64", "--label_resolution", "16", "--clusters", "6", "--seeds", "1", "--restarts", "1"),
    ]
    assert evaluate.main(command) == 2
    assert evaluate.main([*command, "--data.on_error", "skip"]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["data"]["images"] == 3
    assert "1 of the 4 images of scenes-val are left out" in caplog.text
    assert "val_00000.png is not a complete image" in caplog.text
