import time

import numpy as np
import pytest
import torch

from hcl.engine.loss_record import LossRecord
from hcl.engine.step import Losses, Outcome


def outcome(*values: float, applied: bool = True) -> Outcome:
    return Outcome(Losses(*torch.tensor(values)), torch.tensor(applied), [])


def record_of(*totals: float) -> LossRecord:
    record = LossRecord(batch_size=2)
    for step, total in enumerate(totals):
        record.add(step, outcome(total, 1, 1, 1))
    return record


def test_the_mean_of_the_steps_since_the_last_record_is_given_once():
    record = LossRecord(batch_size=2)
    record.add(1, outcome(1, 2, 3, 4))
    record.add(2, outcome(3, 4, 5, 6))
    figures = record.take().figures
    assert figures.pop("images_per_second") > 0
    assert figures == {"loss": 2, "loss_fg": 3, "loss_bg": 4, "loss_prediction": 5}
    assert record.take().figures == {}


def test_a_failed_step_is_told_and_counts_in_no_mean():
    record = record_of(1.0)
    record.add(5, outcome(float("nan"), 1, 1, 1, applied=False))
    figures, failed = record.take()
    assert figures["loss"] == 1
    assert figures["skipped"] == record.skipped == 1
    assert [step.step for step in failed] == [5]
    assert np.isnan(failed[0].losses["total"])


def test_steps_that_all_failed_leave_no_losses_and_end_no_epoch():
    record = LossRecord(batch_size=2)
    record.add(1, outcome(float("inf"), 1, 1, 1, applied=False))
    assert set(record.take().figures) == {"images_per_second", "skipped"}
    with pytest.raises(FloatingPointError, match="no step of a whole epoch was finite"):
        record.end_epoch()


def test_the_epoch_of_least_mean_loss_is_the_best():
    record = LossRecord(batch_size=2)
    best = []
    for totals in ([3.0, 1.0], [1.0, 5.0], [1.0, 4.0], [1.0, 1.0], [1.0, 1.0]):
        for total in totals:
            record.add(1, outcome(total, 1, 1, 1))
        record.take()
        best.append(record.end_epoch())
    assert best == [True, False, False, True, False]


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_an_epoch_taken_up_by_another_record_has_the_same_mean(cut):
    totals = [0.1, 0.7, 0.3]
    record = record_of(*totals[:cut])
    record.take()
    other = record_of(*totals[cut:])
    other.load_state_dict(record.state_dict())
    other.take()
    whole = record_of(*totals)
    whole.take()
    assert other.state_dict() == whole.state_dict()


def test_a_record_that_goes_on_knows_the_best_epoch_and_every_skipped_step():
    record = record_of(1.0)
    for step in (2, 3):
        record.add(step, outcome(float("nan"), 1, 1, 1, applied=False))
        record.take()
    assert record.skipped == 2
    assert record.end_epoch()
    other = record_of(1.5)
    other.load_state_dict(record.state_dict())
    other.take()
    assert other.skipped == 2
    assert not other.end_epoch()


def test_images_per_second_are_those_of_the_steps_since_the_last_record(monkeypatch):
    clock = iter([0.0, 4.0, 4.0, 5.0, 5.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    record = record_of(1.0, 2.0)
    assert record.take().figures["images_per_second"] == 1
    record.add(2, outcome(1, 1, 1, 1))
    assert record.take().figures["images_per_second"] == 2
