"""Two ranks, one of them killed, or the launcher: nothing hangs, nothing is left behind, the run goes on."""

import os
import signal

import pytest

from hcl.commands import train
from hcl.engine.checkpoint import load_checkpoint
from tests.engine.support import arguments
from tests.faults.victim import Victim, alive, children, until


@pytest.fixture
def launched(settings):
    """The launcher of two ranks that have saved a checkpoint and are far from done, and their run."""
    victim = Victim(settings | {"epochs": 400}, ranks=True)
    launcher = victim.start()
    assert until((victim.folder / "checkpoint.pt").exists, 240)
    yield launcher, victim
    launcher.kill()
    launcher.wait(timeout=60)


def test_where_one_of_two_ranks_is_killed_the_other_ends_and_says_why(launched):
    launcher, victim = launched
    ranks = children(launcher.pid)
    os.kill(ranks[1], signal.SIGKILL)
    _, error = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert not any(map(alive, ranks))
    assert "lost its connection to the other ranks" in error
    done = load_checkpoint(victim.folder / "checkpoint.pt")["epoch"]
    assert train.main([*arguments(victim.settings | {"epochs": done + 1}), "--resume"]) == 0


def test_where_the_launcher_is_killed_its_ranks_save_and_end(launched):
    launcher, _ = launched
    ranks = children(launcher.pid)
    assert len(ranks) == 2
    launcher.kill()
    assert until(lambda: not any(map(alive, ranks)), 60)
    assert "stopped by SIGTERM" in launcher.communicate()[1]
