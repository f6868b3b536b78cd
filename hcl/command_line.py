"""What the project's commands share."""

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
"""What a command reports in a sentence, with exit status 2: the user can do something about it."""
TRACEBACK = "HCL_TRACEBACK"
"""The variable that is 1 where a person wants to see more than the sentence."""


def program_name(script: str, *, installed: str) -> str:
    """What the running command is called: ``installed`` where it was started as a console command."""
    return installed if Path(sys.argv[0]).stem == installed else script


def reported(
    program: str, run: Callable[[], int], *, after_interrupt: str = "nothing is left half done"
) -> int:
    """Run a command; what the user can do something about becomes one sentence on stderr.

    An error of ours may look the same: with `TRACEBACK` in the environment, where it arose stands before it.
    A letter that the terminal does not know is written as its number, as Python does on stderr.

    Args:
        program: its name.
        run: returns the exit status.
        after_interrupt: what to know after Ctrl-C, said once by all ranks.

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
    """The arguments with every ``--config FILE`` before the other options, so that these override it.

    Leading subcommands stay in front, and the name of a preset becomes its file.

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
