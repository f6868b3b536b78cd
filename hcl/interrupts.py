"""Report Ctrl-C in one line.

Importing this module is enough, so that Ctrl-C is handled during the seconds in which a command imports the
rest.
"""

import os
import sys
from pathlib import Path
from types import TracebackType

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""


def say_interrupted(program: str, after: str) -> None:
    """Report the interruption on stderr; of several ranks, only rank 0 does."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{program}: interrupted; {after}", file=sys.stderr)


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Handle an uncaught exception; after a KeyboardInterrupt, Python ends the process by SIGINT."""
    if issubclass(kind, KeyboardInterrupt):
        say_interrupted(Path(sys.argv[0]).name, "nothing had begun yet")
    else:
        _previous(kind, error, traceback)


_previous = sys.excepthook
sys.excepthook = _hook
