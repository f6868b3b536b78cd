"""Several ranks in one process: threads that meet in every collective."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor


class Shards:
    """Runs a function once a rank; `reduce` and `gather` hand it the collectives."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._slots: list[Tensor] = [torch.empty(0)] * world
        self._barrier = threading.Barrier(world, timeout=20)

    def run(self, function: Callable[[int, Callable, Callable], Any]) -> list[Any]:
        with ThreadPoolExecutor(self.world) as pool:
            tasks = [
                pool.submit(function, rank, self._collective(rank, sum), self._collective(rank, torch.cat))
                for rank in range(self.world)
            ]
            return [task.result() for task in tasks]

    def _collective(self, rank: int, combine: Callable[[list[Tensor]], Tensor]) -> Callable[[Tensor], Tensor]:
        def collective(tensor: Tensor) -> Tensor:
            self._slots[rank] = tensor
            self._barrier.wait()
            assert len({slot.shape for slot in self._slots}) == 1
            combined = combine(list(self._slots))
            self._barrier.wait()
            return combined

        return collective


@pytest.fixture
def shards() -> type[Shards]:
    """`shards(world).run(function)` calls function(rank, reduce, gather) once a rank."""
    return Shards


@pytest.fixture
def nan_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that torch hands out unwritten holds NaN (all bits set where there is no NaN)."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocated(*args: Any, **kwargs: Any) -> Tensor:
            tensor = allocate(*args, **kwargs)
            return tensor.fill_(torch.nan if tensor.is_floating_point() else -1)

        return allocated

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
