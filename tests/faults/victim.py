"""The run that faults are put to: it lasts seconds, saves itself often and is the same every time."""

import time
from collections.abc import Callable
from pathlib import Path

from hcl.engine.checkpoint import Checkpoints, load_checkpoint, newest_usable
from tests.engine.support import arguments, records
from tests.faults import struck
from tests.forks import Fork
from tests.ranks import torchrun

ROOT = Path(__file__).parents[2]


class Victim:
    """One run in one folder.

    Args:
        settings: of train.py, by dotted name.
        strike: a point, call and signal of `tests.faults.struck`, where it is to be struck on its own.
        ranks: whether torchrun starts it as two ranks.
    """

    def __init__(self, settings: dict, *, strike: tuple[str, ...] = (), ranks: bool = False) -> None:
        self.settings, self.strike, self.ranks = settings, strike, ranks
        self.folder = Path(settings["output"])

    def start(self, *flags: str) -> Fork:
        """Begin the run, or with ``--resume`` continue it."""
        command = [*arguments(self.settings), *flags]
        if self.ranks:
            return torchrun(2, command)
        if self.strike:
            return Fork(struck.main, *self.strike, *command)
        return Fork(struck.train.main, command)

    def finish(self, *flags: str) -> tuple[int | None, str]:
        """Let it run to its end; the exit status and what it said."""
        process = self.start(*flags)
        _, said = process.communicate(timeout=300)
        return process.returncode, said

    def saved(self) -> int:
        """The step of the newest checkpoint, which must be sound; 0 before there is one."""
        if not Checkpoints(self.folder).existing():
            return 0
        state = newest_usable(Checkpoints(self.folder).existing(), load_checkpoint).content
        return state["epoch"] * self.steps_per_epoch + state["step"]

    def logged(self) -> int:
        """The last step that the log tells of."""
        log = self.folder / "log.jsonl"
        steps = records(self.folder, "step") if log.exists() else []
        return max((record["step"] for record in steps), default=0)

    @property
    def steps_per_epoch(self) -> int:
        """Of the twelve images of the training set."""
        return 12 // self.settings["batch_size"]

    @property
    def begun(self) -> int:
        """How often the run has come as far as opening its log."""
        return len(list(self.folder.glob("events.*")))


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for something to become true, and tell whether it did."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
