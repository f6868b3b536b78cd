import numpy as np
import pytest
import torch

from hcl.engine.loss_record import LossRecord, NonFiniteLossError
from hcl.engine.step import Losses


def losses(*values: float) -> Losses:
    return Losses(*torch.tensor(values))


def test_the_mean_of_the_steps_since_the_last_record_is_given_once():
    record = LossRecord(["a.jpg", "b.jpg"], batch_size=2)
    record.add(1, losses(1, 2, 3, 4), np.array([0]))
    record.add(2, losses(3, 4, 5, 6), np.array([1]))
    figures = record.take()
    assert figures.pop("images_per_second") > 0
    assert figures == {"loss": 2, "loss_fg": 3, "loss_bg": 4, "loss_prediction": 5}
    assert record.take() == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step_and_images(bad):
    record = LossRecord(["a.jpg", "b.jpg", "c.jpg"], batch_size=2)
    record.add(4, losses(1, 1, 1, 1), np.array([0]))
    record.add(5, losses(bad, 1, bad, 1), np.array([2, 1]))
    with pytest.raises(NonFiniteLossError, match=r"step 5 .*c\.jpg, b\.jpg"):
        record.take()
