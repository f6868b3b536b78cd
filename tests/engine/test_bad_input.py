"""What a person sees who gives the training something that cannot be used: a reason, and exit status 2."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from hcl.commands import train
from hcl.engine.checkpoint import FORMAT
from pipelines.training_views import TrainingViews
from tests.engine.support import arguments


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def refused(capsys):
    """Train with settings that must be refused; gives what was printed as the reason."""

    def run(settings: dict, *flags: str) -> str:
        assert train.main([*arguments(settings), *flags]) == 2
        return capsys.readouterr().err

    return run


@pytest.fixture
def damaged_root(scenes_root, tmp_path) -> Path:
    return Path(shutil.copytree(scenes_root, tmp_path / "damaged"))


def test_a_missing_folder_is_named(tiny_settings, refused):
    error = refused(tiny_settings | {"data.kind": "voc", "data.root": "/no/such/folder"})
    assert "/no/such/folder" in error


def test_a_missing_split_is_named_with_those_that_exist(tiny_settings, refused):
    error = refused(tiny_settings | {"data.split": "trian"})
    assert "trian" in error
    assert "train" in error.replace("trian", "")


def test_a_truncated_image_is_named_with_its_line(tiny_settings, damaged_root, refused):
    image = sorted((damaged_root / "JPEGImages").iterdir())[0]
    image.write_bytes(image.read_bytes()[:-400])
    error = refused(tiny_settings | {"data.root": str(damaged_root)})
    assert image.name in error
    assert "train.txt:1" in error


def test_a_missing_image_is_named_with_its_line(tiny_settings, damaged_root, refused):
    image = sorted((damaged_root / "JPEGImages").iterdir())[2]
    image.unlink()
    error = refused(tiny_settings | {"data.root": str(damaged_root)})
    assert image.name in error
    assert "train.txt:3" in error


def test_a_batch_larger_than_the_data_set_names_both_numbers(tiny_settings, refused):
    error = refused(tiny_settings | {"batch_size": 64})
    assert "64" in error
    assert "12 images" in error


def test_more_clusters_than_tokens_name_both_numbers(tiny_settings, refused):
    error = refused(tiny_settings | {"clustering.foreground_clusters": 100000})
    assert "100000 clusters" in error


def test_a_hostile_checkpoint_is_refused_and_does_nothing(tiny_settings, tmp_path, refused):
    checkpoint = Path(tiny_settings["output"]) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    touched = tmp_path / "touched"
    torch.save({"format": FORMAT, "hostile": Hostile(touched)}, checkpoint, pickle_module=pickle)
    error = refused(tiny_settings, "--resume")
    assert str(checkpoint) in error
    assert not touched.exists()


def test_a_nan_in_an_image_stops_the_run_and_names_the_images(tiny_settings, monkeypatch, refused):
    original = TrainingViews.batches

    def with_nan(self, *positional, **named):
        for batch in original(self, *positional, **named):
            if 5 in batch.indices and len(batch.views) == 2:
                batch.views[0][0, 0, 0, 0] = torch.nan
            yield batch

    monkeypatch.setattr(TrainingViews, "batches", with_nan)
    error = refused(tiny_settings)
    assert "not finite" in error
    assert "train_00005" in error


def test_an_unknown_backbone_is_named_with_those_that_exist(tiny_settings, refused):
    error = refused(tiny_settings | {"backbone.name": "resnet50"})
    assert "resnet50" in error
    assert "dino_vits16" in error
