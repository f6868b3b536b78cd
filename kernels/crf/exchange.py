"""Arrays shared by a program and its worker processes."""

import mmap
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from multiprocessing import reduction
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Place:
    """The place of an array in the file: its first byte, and its shape."""

    begin: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The byte after the array's last."""
        return self.begin + 4 * int(np.prod(self.shape))


class Exchange:
    """Float32 arrays in an anonymous temporary file, inherited by processes that are started with it.

    Nothing is left behind, however the program ends. Shared memory is no alternative, since containers often
    have little of it. The file never shrinks.
    """

    def __init__(self, file: FileIO | None = None) -> None:
        self.file = file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        weakref.finalize(self, self.file.close)
        self.taken: set[Place] = set()
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[Any], "Exchange"], tuple[Any]]:
        """Let a process inherit the file while it is being started; it cannot be sent to one later."""
        return _inherited, (reduction.DupFd(self.file.fileno()),)

    def put(self, array: np.ndarray) -> Place:
        """Copy an array to a free place; it stays there until it is dropped.

        Raises:
            OSError: the disk is full.
        """
        with self.lock:
            place = Place(self._gap(array.nbytes), array.shape)
            # Written, not mapped: with a full disk, writing to a map would kill the program by a signal.
            self.file.seek(place.begin)
            rest = np.ascontiguousarray(array).data.cast("B")
            while rest:
                rest = rest[self.file.write(rest) :]
            self.taken.add(place)
        return place

    def at(self, place: Place) -> np.ndarray:
        """Return the array at a place; all processes can read and write it."""
        mapped = mmap.mmap(self.file.fileno(), place.end - place.begin, offset=place.begin)
        return np.frombuffer(mapped, np.float32).reshape(place.shape)

    def drop(self, place: Place) -> None:
        """Free a place for other arrays; no process may write there any more."""
        self.taken.discard(place)

    def _gap(self, size: int) -> int:
        """Return the first byte of a page from which on `size` bytes are free."""
        begin = 0
        for place in sorted(self.taken, key=lambda place: place.begin):
            if place.begin - begin >= size:
                break
            begin = -(-place.end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return begin


def _inherited(descriptor: Any) -> Exchange:
    return Exchange(FileIO(descriptor.detach(), "r+b"))
