"""The few collectives that HCL needs; the same calls work for one process and for many."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

DeviceName = Literal["auto", "cpu", "cuda"]
T = TypeVar("T")

# How long one rank waits for another, which may be waiting for a lock or computing its share of a slow CRF.
# For a rank that has ended, the others do not wait that long: torchrun ends them, over NCCL by SIGKILL after
# 30 seconds, as a process that waits for its GPU runs no signal handler. NCCL's default is ten minutes.
PATIENCE = timedelta(hours=2)
# Gloo's error messages begin with the source line that raised them. Everything that waits for another rank
# can raise one: a collective, a backward pass, a forward pass in which DistributedDataParallel agrees on its
# buckets.
OF_GLOO = re.compile(r"\[(enforce fail at )?(\S*/)?gloo/\S+:\d+\]")


class LostRankError(ConnectionError):
    """Another rank has ended, so this one cannot continue."""


@dataclass(frozen=True)
class World:
    """This process among all processes that train together."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls, device: torch.device) -> Self:
        """The world of a process that trains alone."""
        return cls(0, 1, device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum of ``tensor`` over all ranks, on every rank; the argument is not changed."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return the main rank's tensor on every rank; the argument is not changed."""
        if self.size == 1:
            return tensor
        copy = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(copy, src=0)
        return copy

    def broadcast_object(self, value: T) -> T:
        """Return the main rank's value, any picklable object, on every rank."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return all ranks' rows (n, ...) in rank order, n the same on each; the host does not wait."""
        if self.size == 1:
            return rows
        gathered = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """Return all ranks' rows (n, ...) in rank order; n may differ between ranks and may be 0."""
        if self.size == 1:
            return rows
        counts = self.all_gather(torch.tensor([len(rows)], device=rows.device)).tolist()
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = self.all_gather(padded).unflatten(0, (self.size, max(counts)))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def to_owners(self, rows: Tensor, places: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Send every row to the rank whose `slice` of ``total`` rows contains its place.

        Args:
            rows: (n, ...) of this rank; n may differ between ranks.
            places: (n,) int64, from 0 to ``total`` - 1.
            total: number of rows in all slices together.

        Returns:
            The rows that this rank owns, in no particular order, and the place of each within its slice.
        """
        if self.size == 1:
            return rows, places
        ends = torch.tensor([share(total, rank, self.size).stop for rank in range(self.size)])
        owners = torch.searchsorted(ends.to(places.device), places, right=True)
        order = owners.argsort()
        outgoing = owners.bincount(minlength=self.size)
        incoming = torch.empty_like(outgoing)
        dist.all_to_all_single(incoming, outgoing)
        sent, received = outgoing.tolist(), incoming.tolist()

        def exchanged(tensor: Tensor) -> Tensor:
            arrived = tensor.new_empty(sum(received), *tensor.shape[1:])
            dist.all_to_all_single(arrived, tensor[order], received, sent)
            return arrived

        return exchanged(rows), exchanged(places) - self.slice(total).start

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on at least one rank."""
        return bool(self.all_reduce(torch.tensor(int(flag), device=self.device)))

    def union(self, found: set[T]) -> set[T]:
        """Return the union of all ranks' sets, on every rank."""
        if self.size == 1:
            return found
        gathered: list[set[T]] = [set()] * self.size
        dist.all_gather_object(gathered, found)
        return set().union(*gathered)

    def of_machine(self, length: int) -> slice:
        """This rank's `share` of ``length`` rows if every machine has to process all of them."""
        return slice(length) if self.size == 1 else share(length, local_rank(), local_ranks())

    def slice(self, length: int) -> slice:
        """This rank's `share` of ``length`` rows."""
        return share(length, self.rank, self.size)

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        if self.size > 1:
            dist.barrier()


def share(length: int, rank: int, size: int) -> slice:
    """One rank's contiguous share of ``length`` rows; all ranks' shares in rank order make up the whole."""
    return slice(length * rank // size, length * (rank + 1) // size)


def choose_device(name: DeviceName, local_rank: int = 0) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ValueError: ``cuda`` was asked for, but there is no CUDA GPU; or fewer GPUs than local ranks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no CUDA GPU; use --device auto or cpu")
    if name == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"local rank {local_rank} has no GPU, because torch sees {torch.cuda.device_count()} of them: "
            "start as many ranks per machine as it has GPUs (--nproc_per_node), or use --device cpu"
        )
    return torch.device("cuda", local_rank)


def local_rank() -> int:
    """This process's index among ``torchrun``'s ranks on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_ranks() -> int:
    """Number of ``torchrun``'s ranks on this machine, which share its memory and processors."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def connect(device: DeviceName = "auto") -> Iterator[World]:
    """Join the processes that ``torchrun`` started (NCCL on GPUs, Gloo on CPUs), or run alone without it.

    If torchrun itself is killed, its processes get SIGTERM and end too (on Linux).

    Raises:
        LostRankError: the block failed because another rank ended before it.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, local_rank())
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World.alone(chosen)
        return
    if dist.is_torchelastic_launched():
        _end_with_parent()
    _join(chosen)
    world = World(dist.get_rank(), dist.get_world_size(), chosen)
    try:
        yield world
    except RuntimeError as error:
        if _lost(error):
            raise LostRankError(
                f"rank {world.rank} lost its connection to the other ranks; see the error of the rank that "
                "ended first"
            ) from error
        raise
    # Not after an error: NCCL would wait for ranks that wait in a collective for this one.
    dist.destroy_process_group()


def _lost(error: RuntimeError) -> bool:
    """Whether a connection failed; Gloo raises a RuntimeError that only its message tells from others."""
    return isinstance(error, dist.DistError) or bool(OF_GLOO.match(str(error)))


def _join(device: torch.device) -> None:
    """Create the process group, separate from those of earlier attempts.

    If torchrun keeps the store for all attempts, restarted ranks would read the dead addresses of the earlier
    ones from it. The number of restarts tells the attempts apart, but only the ranks of one machine are sure
    to have the same number. With several machines, torchrun must start a new store (docs/cluster.md).
    """
    store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # type: ignore[attr-defined]
    backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PATIENCE, device_id=bound
    )


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent dies; otherwise this process would keep running."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
