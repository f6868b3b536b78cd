"""Ctrl-C as one line. Importing this arms it at once, since a command takes seconds to import the rest."""

import os
import sys
from pathlib import Path
from types import TracebackType

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def say_interrupted(program: str, after: str) -> None:
    """Say so on stderr; of several ranks one does."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{program}: interrupted; {after}", file=sys.stderr)


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What nobody caught; a KeyboardInterrupt then ends the process by its signal."""
    if issubclass(kind, KeyboardInterrupt):
        say_interrupted(Path(sys.argv[0]).name, "nothing had begun yet")
    else:
        _previous(kind, error, traceback)


_previous = sys.excepthook
sys.excepthook = _hook
