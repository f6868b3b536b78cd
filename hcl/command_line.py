"""Code that the project's commands share."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from itertools import islice, takewhile
from pathlib import Path

from hcl.data.images import DecodeError
from hcl.interrupts import INTERRUPTED, say_interrupted
from hcl.presets import find_preset

BAD_INPUT = (ValueError, OSError, FloatingPointError, DecodeError, ModuleNotFoundError)
"""Errors that a command reports in one sentence, with exit status 2: the user can do something about them."""
TRACEBACK = "HCL_TRACEBACK"
"""Environment variable; set to 1, it has the traceback printed before the sentence."""


def program_name(script: str, *, installed: str) -> str:
    """Return the running command's name: ``installed`` if it was started as a console command."""
    return installed if Path(sys.argv[0]).stem == installed else script


def reported(
    program: str, run: Callable[[], int], *, after_interrupt: str = "no incomplete files are left"
) -> int:
    """Run a command; report errors that the user can do something about as one sentence on stderr.

    A bug in this program may look the same: with `TRACEBACK` set in the environment, the traceback is printed
    first. Characters that the terminal cannot show are escaped on stdout as Python does on stderr.

    Args:
        program: the command's name.
        run: does the work and returns the exit status.
        after_interrupt: what to tell the user after Ctrl-C; of several ranks, one prints it.

    Returns:
        The exit status: that of ``run``, 2 after `BAD_INPUT`, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return run()
    except BAD_INPUT as error:
        if os.environ.get(TRACEBACK, "0") not in ("", "0"):
            traceback.print_exc()
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say_interrupted(program, after_interrupt)
        return INTERRUPTED


def preset_first(arguments: Sequence[str]) -> list[str]:
    """Move every ``--config FILE`` in front of the other options, so that those override it.

    Leading subcommands stay in front, and the name of a preset is replaced by its file.

    Raises:
        FileNotFoundError: there is no such file or preset.
    """
    presets: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            presets += [argument, *map(find_preset, islice(remaining, 1))]
        elif argument.startswith("--config="):
            presets.append(f"--config={find_preset(argument.removeprefix('--config='))}")
        else:
            rest.append(argument)
    subcommands = list(takewhile(lambda argument: not argument.startswith("-"), rest))
    return [*subcommands, *presets, *rest[len(subcommands) :]]
