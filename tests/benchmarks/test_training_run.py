import json

import pytest
import torch
from PIL import Image

from benchmarks import training_run
from tests.forks import FORKS

SMALL = [
    *("--images", "6", "--side", "72", "--size", "64", "--epochs", "2", "--batch_size", "2"),
    *("--clusters", "4", "--backbone", "tiny", "--precision", "fp32", "--threads", "1"),
]


def test_the_report_tells_how_long_all_and_every_part_took(monkeypatch, capsys):
    monkeypatch.setattr(training_run, "get_context", lambda _: FORKS)
    report = training_run.main(SMALL)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report))
    assert len(report["clustering_seconds"]) == 2
    assert 0 < sum(report["clustering_seconds"]) < 2 * report["epoch_seconds"] < report["seconds"]
    assert all(rate > 0 for rate in report["step_images_per_second"])


def test_a_training_that_a_signal_stopped_is_not_reported(monkeypatch, capsys):
    monkeypatch.setattr(training_run, "get_context", lambda _: FORKS)
    monkeypatch.setattr(training_run.Trainer, "run", lambda _: False)
    with pytest.raises(SystemExit, match="stopped the training"):
        training_run.main(SMALL)
    assert not capsys.readouterr().out


def test_images_differ_and_have_the_side_that_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(training_run, "get_context", lambda _: FORKS)
    training_run.write_images(tmp_path / "images", 3, 72)
    files = sorted((tmp_path / "images").iterdir())
    assert [Image.open(file).size for file in files] == [(72, 72)] * 3
    assert len({file.read_bytes() for file in files}) == 3


def test_the_weights_are_the_same_every_time(tmp_path):
    for name in ("first", "second"):
        training_run.write_weights(tmp_path / name, "tiny")
    first, second = (torch.load(tmp_path / name) for name in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)
