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
def stop_on_signal(*, insist: bool = True) -> Iterator[StopRequest]:
    """Note SIGTERM and SIGINT instead of dying of them.

    Args:
        insist: whether a SIGINT after another signal interrupts as usual. Not among ranks: there Ctrl-C comes
            twice, from the terminal and from torchrun, which also ends whoever does not stop in time.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.received = signal.Signals(number)
        if insist:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
