"""Ask a run to stop at the next safe point."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the process was told to end."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @property
    def name(self) -> str:
        """Of the signal received, such as SIGTERM."""
        return self.received.name if self.received else "nothing"

    def __bool__(self) -> bool:
        return self.received is not None


@contextmanager
def stop_on_signal(*, among_ranks: bool = False) -> Iterator[StopRequest]:
    """Note SIGTERM and SIGINT instead of dying of them.

    Args:
        among_ranks: whether torchrun started this process and others. Ctrl-C then comes twice, from the
            terminal and from torchrun, which also ends whoever does not stop in time; alone, a SIGINT after
            another signal interrupts as usual. And where the block fails, signals are noted to the end of the
            process: torchrun's SIGTERM comes while a rank that has lost another is about to say so.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.received = signal.Signals(number)
        if not among_ranks:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    failed = True
    try:
        yield request
        failed = False
    finally:
        if not (failed and among_ranks):
            for number, handler in previous.items():
                signal.signal(number, handler)
