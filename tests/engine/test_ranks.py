"""Gloo ranks compute what one process computes, and go on where one of them was lost."""

import os
import signal
from pathlib import Path

import pytest
import torch

from hcl.commands import train
from tests.engine.support import arguments, records, same, saved_state
from tests.faults.victim import children, until
from tests.ranks import on_ranks, torchrun


@pytest.mark.parametrize(("mode", "ranks"), [("epoch", 2), ("epoch", 4), ("online", 2)])
def test_ranks_give_the_losses_bank_and_centroids_of_one_process(tiny_settings, tmp_path, mode, ranks):
    tiny_settings = tiny_settings | {"clustering.mode": mode}
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert train.main(arguments(tiny_settings | {"output": str(alone)})) == 0
    on_ranks(ranks, train.main, arguments(tiny_settings | {"output": str(together)}))

    steps = [records(folder, "step") for folder in (alone, together)]
    assert len(steps[0]) == len(steps[1]) == 9
    for one, two in zip(*steps, strict=True):
        for name in ("loss", "loss_fg", "loss_bg", "loss_prediction"):
            assert abs(one[name] - two[name]) < 1e-5 * max(1, one[name])
    states = [saved_state(folder) for folder in (alone, together)]
    for name in ("centroids_foreground", "centroids_background"):
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-5, rtol=0)
    for name in ("bank_foreground", "bank_background") if mode == "epoch" else ():
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_torchrun_restarts_the_ranks_when_one_is_killed_and_they_come_to_the_same_bits(
    tiny_settings, tmp_path
):
    settings = tiny_settings | {"epochs": 10, "checkpoint_every": 1}
    calm = settings | {"output": str(tmp_path / "calm")}
    on_ranks(2, train.main, arguments(calm))
    launcher = torchrun(2, [*arguments(settings), "--resume"], "--max-restarts=1")
    assert until((Path(settings["output"]) / "checkpoint.pt").exists, 240)
    os.kill(children(launcher.pid)[1], signal.SIGKILL)
    assert launcher.communicate(timeout=240)
    assert launcher.returncode == 0
    assert same(saved_state(settings["output"]), saved_state(calm["output"]))
    steps = [record["step"] for record in records(settings["output"], "step")]
    assert steps == list(range(1, 31))
