"""Training that is struck by a signal, or whatever else, at a chosen moment."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from hcl.commands import train
from hcl.engine import bank_files, bank_pass, checkpoint
from hcl.engine.run_log import RunLog
from hcl.engine.step import TrainingStep
from kernels.kmeans import lloyd

POINTS: dict[str, tuple[Any, str]] = {
    "step": (TrainingStep, "__call__"),
    "bank": (bank_pass, "sample_tokens"),
    "k-means": (lloyd, "lloyd_step"),
    "write": (checkpoint, "write_state"),
    "bank file": (bank_files, "write_state"),
    "rename": (Path, "replace"),
    "log": (RunLog, "record"),
}
"""Where a run can be struck: before the function is called, or in the middle of a file that it writes."""
FILES = ("write", "bank file")

Strike = Callable[[], None]


class _Pipe:
    """A file that something is done to at its third write: the archive has begun and is not complete."""

    def __init__(self, file: Any, strike: Strike) -> None:
        self._file, self._strike, self._writes = file, strike, 0

    def write(self, data: Any) -> int:
        self._writes += 1
        if self._writes == 3:
            self._strike()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def struck(point: str, call: int, strike: Strike) -> Iterator[None]:
    """Do something to the program the ``call``-th time that it passes a point."""
    owner, name = POINTS[point]
    original, calls = getattr(owner, name), 0

    def passing(*positional: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and point in FILES:
            state, file = positional
            return original(state, _Pipe(file, strike))
        if calls == call:
            strike()
        return original(*positional, **named)

    with mock.patch.object(owner, name, passing):
        yield


def main(point: str, call: str, number: str, *arguments: str) -> int:
    """Train with a signal to come the ``call``-th time that the run passes a point.

    Returns the exit status of train.py, where the signal leaves one; ``arguments`` are its command line.
    """
    with struck(point, int(call), lambda: os.kill(os.getpid(), signal.Signals[number])):
        return train.main(list(arguments))
