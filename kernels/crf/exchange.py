"""Arrays that a program and its worker processes both see."""

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
    """Where an array lies: its first byte, and its shape."""

    begin: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.begin + 4 * int(np.prod(self.shape))


class Exchange:
    """Float32 arrays in a file without a name, which processes inherit that are started with this.

    So nothing stays behind, however the program ends. Shared memory would not do: containers often have
    little of it. The file keeps the size that was needed at most.
    """

    def __init__(self, file: FileIO | None = None) -> None:
        self.file = file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        weakref.finalize(self, self.file.close)
        self.taken: set[Place] = set()
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[Any], "Exchange"], tuple[Any]]:
        """Have a process that is being started inherit the file; it cannot be sent to one later."""
        return _inherited, (reduction.DupFd(self.file.fileno()),)

    def put(self, array: np.ndarray) -> Place:
        """Copy an array to where no other lies; it stays there until it is dropped.

        Raises:
            OSError: the disk is full.
        """
        with self.lock:
            place = Place(self._gap(array.nbytes), array.shape)
            # Written, since a map of a file that the disk has no room for ends the program by a signal.
            self.file.seek(place.begin)
            rest = np.ascontiguousarray(array).data.cast("B")
            while rest:
                rest = rest[self.file.write(rest) :]
            self.taken.add(place)
        return place

    def at(self, place: Place) -> np.ndarray:
        """The array at a place, to be read and written by all."""
        mapped = mmap.mmap(self.file.fileno(), place.end - place.begin, offset=place.begin)
        return np.frombuffer(mapped, np.float32).reshape(place.shape)

    def drop(self, place: Place) -> None:
        """Leave a place to other arrays; nobody may write there any more."""
        self.taken.discard(place)

    def _gap(self, size: int) -> int:
        """The first byte of a page behind which so many bytes are free."""
        begin = 0
        for place in sorted(self.taken, key=lambda place: place.begin):
            if place.begin - begin >= size:
                break
            begin = -(-place.end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return begin


def _inherited(descriptor: Any) -> Exchange:
    return Exchange(FileIO(descriptor.detach(), "r+b"))
