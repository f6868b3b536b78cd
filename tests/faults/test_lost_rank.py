"""Wherever a rank waits for another that is gone, it says so: in the words of the Gloo that is installed."""

import os
from collections.abc import Iterator

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from hcl.distributed import LostRankError, World, connect
from tests.ranks import on_ranks


@pytest.mark.parametrize("place", ["all-reduce", "first backward", "second forward", "second backward"])
def test_a_rank_that_waits_for_one_that_is_gone_says_so(place):
    assert "rank 0 lost its connection" in on_ranks(2, _part_at, place)


def _part_at(place: str) -> None:
    """Two ranks work together as far as a place, where rank 1 dies."""
    try:
        with connect("cpu") as world:
            for reached in _together(world):
                if reached == place and world.rank == 1:
                    os._exit(0)
    except LostRankError as error:
        print(error)


def _together(world: World) -> Iterator[str]:
    """What ranks do together; each thing's name comes before it is done."""
    online = DistributedDataParallel(torch.nn.Linear(4, 4))
    yield "all-reduce"
    world.all_reduce(torch.ones(1))
    for number in ("first", "second"):
        yield f"{number} forward"
        loss = online(torch.ones(1, 4)).sum()
        yield f"{number} backward"
        loss.backward()
