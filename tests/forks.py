"""Processes that begin at once: forks of one that has everything imported and has computed nothing."""

import multiprocessing
import os
import signal
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

IMPORTED = [
    "hcl.commands.evaluate",
    "hcl.evaluation.fully_unsupervised",
    "hcl.evaluation.linear_probe",
    "hcl.evaluation.overclustering",
    "hcl.evaluation.retrieval",
    "nvidia.dali",
    "tests.faults.struck",
    "torch._dynamo",
    "torch.distributed.run",
    "torch.utils.tensorboard",
]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(IMPORTED)


class Fork:
    """A process that calls a function, with the face of `subprocess.Popen` as far as tests need it.

    Args:
        function: of a module; what it returns is the exit status, None for 0.
        arguments: of the function.
        environment: in which it is called; by default this process's.
    """

    def __init__(
        self, function: Callable, *arguments: Any, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._told = told = [_empty_file(), _empty_file()]
        weakref.finalize(self, lambda: [path.unlink() for path in told])
        given = (dict(environment), told, function, arguments)
        self._process = FORKS.Process(target=_call, args=given)
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

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; gives the exit status.

        Raises:
            TimeoutError: it has not ended in time, and was killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"process {self.pid} has not ended in {timeout} seconds")
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; gives what the process printed, and what it wrote as errors."""
        self.wait(timeout)
        printed, said = (path.read_text() for path in self._told)
        return printed, said


def _empty_file() -> Path:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        return Path(file.name)


def _call(environment: dict[str, str], told: list[Path], function: Callable, arguments: tuple) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(told, start=1):
        with path.open("w") as file:
            os.dup2(file.fileno(), number)
    sys.exit(function(*arguments))
