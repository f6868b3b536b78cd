import numpy as np
import pytest
import torch

from hcl.distributed import World
from hcl.engine.batches import Batches


def batches(images=23, batch_size=8, accumulation=1, rank=0, size=1):
    return Batches(images, batch_size, accumulation, 7, World(rank, size, torch.device("cpu")))


@pytest.mark.parametrize(("size", "accumulation"), [(2, 1), (1, 2), (4, 2)])
def test_every_step_holds_the_same_images_whatever_the_division(size, accumulation):
    alone = [set(indices) for indices in batches().training(epoch=3)]
    ranks = [batches(accumulation=accumulation, rank=rank, size=size).training(3) for rank in range(size)]
    per_step = [
        set(np.concatenate([part for share in ranks for part in share[step * accumulation :][:accumulation]]))
        for step in range(len(alone))
    ]
    assert per_step == alone == [set(batches().step(3, number)) for number in range(len(alone))]


def test_epochs_differ_in_order_and_show_no_image_twice():
    first, second = (np.concatenate(batches().training(epoch)) for epoch in (0, 1))
    assert len(set(first)) == len(first) == 16
    assert not np.array_equal(first, second)


def test_a_resumed_epoch_shows_the_rest():
    whole = batches().training(2)
    rest = batches().training(2, first_step=1)
    assert len(rest) == 1
    assert np.array_equal(rest[0], whole[1])


def spread_out(most: int, size: int) -> list[int]:
    """The images of all ranks in rank order."""
    shares = [batches(rank=rank, size=size).spread_out(most) for rank in range(size)]
    return [index for share in shares for part in share for index in part]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_bank_pass_covers_every_image_once_in_order(size):
    assert spread_out(23, size) == list(range(23))


@pytest.mark.parametrize("size", [1, 2])
def test_fewer_images_are_spread_over_the_whole_set(size):
    assert spread_out(3, size) == [0, 11, 22]


@pytest.mark.parametrize("batch_size", [24, 0])
def test_a_batch_larger_than_the_data_set_is_refused_with_both_numbers(batch_size):
    with pytest.raises(ValueError, match=rf"batch_size is {batch_size}.*23 images"):
        batches(batch_size=batch_size)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="8 is not divisible by 3 ranks"):
        batches(size=3)


def test_a_batch_may_hold_every_image():
    (whole,) = batches(images=8).training(0)
    assert sorted(whole) == list(range(8))
    assert batches(images=8).left_over(0) == []


@pytest.mark.parametrize("size", [1, 2])
def test_images_in_no_batch_are_left_over(size):
    ranks = [batches(rank=rank, size=size) for rank in range(size)]
    trained = [index for rank in ranks for part in rank.training(5) for index in part]
    others = [index for rank in ranks for part in rank.left_over(5) for index in part]
    assert len(others) == 23 - 16
    assert sorted([*trained, *others]) == list(range(23))
