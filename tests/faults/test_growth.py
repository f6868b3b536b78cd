"""A run of many steps holds on to nothing; the measure that says so sees a leak."""

import gc
from collections.abc import Iterator
from unittest import mock

import pytest
import torch

from hcl.engine.loss_record import LossRecord
from tests.engine.support import arguments
from tests.faults.growth import growth


@pytest.fixture(autouse=True)
def no_garbage_of_others() -> Iterator[None]:
    """The measure collects garbage first: there is much to look at of what other tests have left behind."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def many_steps(settings) -> list[str]:
    """168 steps in 14 epochs of 12, as a command line."""
    changed = {"batch_size": 1, "epochs": 14, "checkpoint_every": 50}
    return arguments(settings | changed)


def test_memory_files_threads_and_children_stay_as_they_are(many_steps):
    found = growth(160, many_steps)
    assert found["status"] == 0
    assert found["bytes_per_step"] < 20_000
    middle, end = found["seen"][len(found["seen"]) // 2], found["seen"][-1]
    for kind in ("files", "threads", "children"):
        assert end[kind] <= middle[kind], kind


def test_a_leak_of_a_few_images_a_step_is_seen(many_steps):
    leaked = []
    original = LossRecord.add

    def leaking(self, *positional):
        leaked.append(torch.ones(100_000))
        original(self, *positional)

    with mock.patch.object(LossRecord, "add", leaking):
        assert growth(80, [*many_steps, "--epochs=7"])["bytes_per_step"] > 300_000
