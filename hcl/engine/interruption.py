"""Ask a run to stop at the next safe point."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a signal has asked the process to stop."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @property
    def name(self) -> str:
        """Name of the received signal, such as SIGTERM."""
        return self.received.name if self.received else "nothing"

    def __bool__(self) -> bool:
        return self.received is not None


@contextmanager
def stop_on_signal(*, among_ranks: bool = False) -> Iterator[StopRequest]:
    """Record SIGTERM and SIGINT instead of ending the process.

    Args:
        among_ranks: whether torchrun started this process and others. If not, a SIGINT after another signal
            interrupts as usual. With torchrun it does not, because Ctrl-C arrives twice, from the terminal
            and from torchrun, which also ends processes that do not stop in time. If the block then fails,
            signals are recorded until the process ends: torchrun's SIGTERM arrives while a rank that has lost
            another is about to report it.
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
