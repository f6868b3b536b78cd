import os
import signal
from types import SimpleNamespace

import pytest
import torch

from hcl.distributed import World
from hcl.engine.interruption import StopRequest, stop_on_signal
from hcl.engine.trainer import Stopped, Trainer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.name == number.name
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_at_once():
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def handlers():
    """Bring back, after the test, what handles signals before it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_among_ranks_a_second_interrupt_is_the_launchers_and_only_noted(handlers):
    with stop_on_signal(among_ranks=True) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.name == "SIGINT"
    assert all(signal.getsignal(number) is handler for number, handler in handlers.items())


def test_a_rank_that_fails_does_not_die_of_torchruns_signal_before_it_says_why(handlers):
    with pytest.raises(RuntimeError, match="Connection closed"), stop_on_signal(among_ranks=True) as stop:
        raise RuntimeError("Connection closed by peer")
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.name == "SIGTERM"


def test_alone_handlers_come_back_after_a_failure_too(handlers):
    with pytest.raises(RuntimeError), stop_on_signal():
        raise RuntimeError
    assert all(signal.getsignal(number) is handler for number, handler in handlers.items())


class Told(World):
    """A rank that hears of another's signal."""

    def any(self, flag: bool) -> bool:
        return True


def test_a_rank_stops_after_the_bank_pass_for_another_ones_signal():
    rank = SimpleNamespace(
        **{"world": Told.alone(torch.device("cpu")), "stop": StopRequest(), "epoch": 0},
        config=SimpleNamespace(epochs=1),
        bank_pass=SimpleNamespace(images=0, levels=lambda epoch: iter(())),
    )
    with pytest.raises(Stopped):
        list(Trainer._bank_samples(rank))
