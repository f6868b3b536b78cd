"""Told to end or killed at the worst moments, a run continues and comes to the same bits."""

import os
import signal
from pathlib import Path

import pytest

from hcl.commands import train
from hcl.engine.checkpoint import Checkpoints, load_checkpoint, newest_usable
from tests.engine.support import arguments, saved_state
from tests.faults.struck import struck
from tests.faults.victim import Victim

MOMENTS = [("write", 5), ("rename", 13), ("bank file", 2), ("bank", 4), ("k-means", 16)]


@pytest.mark.parametrize(("point", "call"), MOMENTS[:3])
def test_killed_at_the_worst_moment_the_run_continues_to_the_same_bits(settings, continues, point, call):
    victim = Victim(settings, strike=(point, str(call), "SIGKILL"))
    assert victim.finish()[0] == -signal.SIGKILL
    saved = newest_usable(Checkpoints(Path(settings["output"])).existing(), load_checkpoint).content
    assert saved["epoch"] >= 1
    assert continues()


@pytest.mark.parametrize(
    ("point", "call", "number"),
    [(*moment, signal.SIGTERM) for moment in MOMENTS] + [("step", 5, signal.SIGINT)],
)
def test_told_to_end_at_the_worst_moment_it_saves_and_continues_to_the_same_bits(
    settings, continues, point, call, number
):
    with struck(point, call, lambda: os.kill(os.getpid(), number)):
        assert train.main(arguments(settings)) == 143
    assert saved_state(settings["output"])["epoch"] >= 1
    assert continues()


@pytest.mark.parametrize(("point", "call"), [("write", 5), ("k-means", 16)])
def test_ctrl_c_twice_ends_at_once_with_a_sentence_and_all_but_the_last_step(
    settings, continues, capsys, point, call
):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with struck(point, call, twice):
        assert train.main(arguments(settings)) == 130
    assert "interrupted" in capsys.readouterr().err.splitlines()[-1]
    assert saved_state(settings["output"])["epoch"] >= 1
    assert continues()
