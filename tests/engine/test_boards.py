"""Weights & Biases, by a stand-in that notes what it is told."""

import sys
from types import SimpleNamespace

import pytest

from hcl.commands import train
from tests.engine.support import arguments


class FakeRun:
    def __init__(self, **told) -> None:
        self.told = told
        self.logged: list[dict] = []
        self.metrics: list[tuple] = []
        self.finished = False

    def define_metric(self, name, step_metric=None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, figures) -> None:
        self.logged.append(figures)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch) -> list[FakeRun]:
    """Every run that was opened."""
    opened: list[FakeRun] = []

    def init(**told) -> FakeRun:
        opened.append(FakeRun(**told))
        return opened[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return opened


def test_weights_and_biases_shows_the_curves_and_goes_on_when_the_run_does(tiny_settings, tmp_path, runs):
    given = tiny_settings | {"logger": "wandb", "epochs": 1}
    assert train.main(arguments(given)) == 0
    assert train.main([*arguments(given | {"epochs": 2}), "--resume"]) == 0
    first, second = runs
    assert first.told["id"] == second.told["id"]
    assert first.told["resume"] == "allow"
    assert first.told["dir"] == str(tmp_path / "run")
    assert first.told["config"]["optimiser"]["lr"] == 1e-3
    assert ("*", "optimiser_step") in first.metrics
    losses = [f for run in runs for f in run.logged if "step/loss" in f]
    assert [figures["optimiser_step"] for figures in losses] == [1, 2, 3, 4, 5, 6]
    assert first.finished
    assert second.finished
    assert not list((tmp_path / "run").glob("events.*"))


def test_without_the_package_it_is_told_what_to_install(tiny_settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train.main(arguments(tiny_settings | {"logger": "wandb"})) == 2
    error = capsys.readouterr().err
    assert "pip install '.[wandb]' in the project's folder" in error
    assert "Traceback" not in error
