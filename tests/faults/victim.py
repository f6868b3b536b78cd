"""The run that faults are put to: it lasts seconds, saves itself often and is the same every time."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hcl.engine.checkpoint import Checkpoints, load_checkpoint, newest_usable
from tests.engine.support import arguments, records

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py")


class Running:
    """A process that trains, begun by a fork of one that has everything imported: it starts in no time.

    It has the face of `subprocess.Popen` as far as the faults need it. That process has one thread, and has
    computed nothing.
    """

    _forks = multiprocessing.get_context("forkserver")
    _forks.set_forkserver_preload(["tests.faults.struck", "torch._dynamo", "torch.utils.tensorboard"])

    def __init__(self, command: list[str], strike: tuple[str, ...]) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self._told = Path(file.name)
        self._process = self._forks.Process(target=_train, args=(command, strike, self._told))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Signal the process if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Wait for the end; gives what the process wrote as errors in second place."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"process {self.pid} has not ended in {timeout} seconds")
        told = self._told.read_text()
        self._told.unlink()
        return None, told


def _train(command: list[str], strike: tuple[str, ...], told: Path) -> None:
    from tests.faults import struck

    with told.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.exit(struck.main(*strike, *command) if strike else struck.train.main(command))


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

    def start(self, *flags: str) -> Running | subprocess.Popen:
        """Begin the run, or with ``--resume`` continue it."""
        command = [*arguments(self.settings), *flags]
        if not self.ranks:
            return Running(command, self.strike)
        return subprocess.Popen(
            [*TORCHRUN, *command],
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

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
