"""What is wrong with the settings is told before the images are looked at."""

import sys

import pytest

from hcl.commands import train
from hcl.engine import trainer
from tests.engine.support import arguments


@pytest.fixture
def unseen(monkeypatch) -> None:
    """No image may be looked at."""

    def look(*_, **__) -> None:
        raise AssertionError("the images are looked at")

    monkeypatch.setattr(trainer, "usable", look)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"accumulation": 3}, "batch_size 4 is not divisible by 1 ranks x 3 micro-batches"),
        ({"backbone.weights": "nowhere.pth"}, "nowhere.pth"),
        ({"backbone.weights": "nowhere.pth", "batch_size": 64}, "the training split has 12 images"),
        ({"precision": "fp8"}, "fp8"),
        ({"logger": "wandb"}, "needs the package wandb"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_unseen(
    tiny_settings, unseen, monkeypatch, capsys, setting, told
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train.main(arguments(tiny_settings | setting)) == 2
    assert told in capsys.readouterr().err


def test_a_folder_with_a_run_is_refused_unseen(tiny_settings, monkeypatch, capsys, request):
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    request.getfixturevalue("unseen")
    assert train.main(arguments(tiny_settings)) == 2
    assert "continue it with --resume, or choose another --output" in capsys.readouterr().err


def test_what_passes_is_looked_at(tiny_settings, unseen):
    with pytest.raises(AssertionError, match="the images are looked at"):
        train.main(arguments(tiny_settings))
