"""Ranks that begin at once, in the environment that torchrun gives its own."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import run

from tests.forks import Fork

ROOT = Path(__file__).parents[1]


def on_ranks(count: int, function: Callable, *arguments: Any) -> str:
    """Call a function on so many ranks, each a process with one thread; gives what they print.

    Like torchrun, this process keeps the store in which the ranks find each other, and as there the ranks
    are told the number of their threads.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    ranks = [
        Fork(_rank, function, *arguments, environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    try:
        told = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for number, (rank, (_, said)) in enumerate(zip(ranks, told, strict=True)):
        assert not rank.returncode, f"rank {number} gave {rank.returncode}: {said[-4000:]}"
    return "".join(printed for printed, _ in told)


def _rank(function: Callable, *arguments: Any) -> int | None:
    torch.set_num_threads(1)
    return function(*arguments)


def torchrun(count: int, arguments: Sequence[str], *options: str) -> Fork:
    """Start ``torchrun train.py`` with its own ranks, as the leader of a session of processes."""
    launch = ["--standalone", f"--nproc_per_node={count}", *options, "train.py", *arguments]
    return Fork(_launcher, launch)


def _launcher(arguments: list[str]) -> None:
    os.setsid()
    os.chdir(ROOT)
    run.main(arguments)
