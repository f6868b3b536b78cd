"""A run that was ended early and continued is, bit for bit, the run that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hcl.commands import train
from hcl.engine import bank_pass
from hcl.engine.checkpoint import Checkpoints, load_checkpoint
from tests.engine.support import arguments, records, same, saved_state

ROOT = Path(__file__).parents[2]
SIGNAL_IN_STEP = """
import os, sys
from hcl.commands import train
from hcl.engine.step import TrainingStep

original, steps = TrainingStep.__call__, 0

def step(self, views):
    global steps
    steps += 1
    if steps == {step}:
        os.kill(os.getpid(), {signal})
    return original(self, views)

TrainingStep.__call__ = step
sys.exit(train.main(sys.argv[1:]))
"""


def run_with_signal(settings: dict, number: signal.Signals, step: int) -> int:
    script = SIGNAL_IN_STEP.format(step=step, signal=int(number))
    return subprocess.run(
        [sys.executable, "-c", script, *arguments(settings)], cwd=ROOT, check=False, timeout=120
    ).returncode


def losses(folder: str) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in records(folder, "step")]


@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_same_bits(tiny_settings, tmp_path, mode):
    settings = tiny_settings | {"checkpoint_every": 1, "clustering.mode": mode}
    undisturbed = settings | {"output": str(tmp_path / "undisturbed")}
    assert train.main(arguments(undisturbed)) == 0

    assert run_with_signal(settings, signal.SIGKILL, step=6) == -signal.SIGKILL
    saved = saved_state(settings["output"])
    assert (saved["epoch"], saved["step"]) == (1, 2)
    assert train.main([*arguments(settings), "--resume"]) == 0

    assert same(saved_state(settings["output"]), saved_state(undisturbed["output"]))
    assert losses(settings["output"]) == losses(undisturbed["output"])


def test_sigterm_saves_and_exits(tiny_settings):
    assert run_with_signal(tiny_settings, signal.SIGTERM, step=5) == 143
    saved = saved_state(tiny_settings["output"])
    assert (saved["epoch"], saved["step"]) == (1, 2)


def test_sigterm_in_the_bank_pass_ends_the_run_before_its_first_step(tiny_settings, monkeypatch):
    original = bank_pass.sample_tokens

    def sample_and_signal(*positional, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*positional, **named)

    monkeypatch.setattr(bank_pass, "sample_tokens", sample_and_signal)
    assert train.main(arguments(tiny_settings)) == 143
    assert losses(tiny_settings["output"]) == []


def test_a_folder_with_a_run_is_not_overwritten(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    assert train.main(arguments(settings)) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_run_that_is_done_says_so_when_it_is_resumed(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    capsys.readouterr()
    before = saved_state(settings["output"])
    assert train.main([*arguments(settings), "--resume"]) == 0
    checkpoint = Path(settings["output"]) / "checkpoint.pt"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"already reached epoch 1 of 1: its checkpoint is {checkpoint}; " in line
    assert same(saved_state(settings["output"]), before)


def test_resuming_with_other_settings_is_refused_by_name(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    assert train.main([*arguments(settings | {"optimiser.lr": 0.5}), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "optimiser.lr: 0.001 -> 0.5" in error
    assert "give those, or choose another --output" in error


def test_a_checkpoint_from_before_these_settings_and_records_is_continued(tiny_settings):
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    path = Path(tiny_settings["output"]) / "checkpoint.pt"
    state = load_checkpoint(path)
    for name in ("epoch_loss_sum", "epoch_loss_steps", "best_loss", "skipped_steps", "images"):
        del state[name]
    for name in ("deterministic", "checkpoints_kept", "on_non_finite"):
        del state["config"][name]
    del state["config"]["clustering"]["k"], state["config"]["data"]["on_error"]
    state["optimizer"]["param_groups"][0]["fused"] = None
    Checkpoints(path.parent).save(state)
    assert train.main([*arguments(tiny_settings), "--resume"]) == 0
    assert saved_state(path.parent)["epoch"] == 3


def test_a_checkpoint_with_settings_from_elsewhere_is_refused_by_name(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    path = Path(settings["output"]) / "checkpoint.pt"
    state = load_checkpoint(path)
    state["config"]["invented"] = 1
    Checkpoints(path.parent).save(state)
    assert train.main([*arguments(settings), "--resume"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "invented" in error


def test_a_checkpoint_of_another_width_is_refused_by_key(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    path = Path(settings["output"]) / "checkpoint.pt"
    state = load_checkpoint(path)
    state["online_seg_head"]["norm.weight"] = torch.ones(7)
    Checkpoints(path.parent).save(state)
    assert train.main([*arguments(settings), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "norm.weight" in error
    assert "(7,)" in error
