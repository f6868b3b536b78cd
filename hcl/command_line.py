"""What the project's commands share."""

from collections.abc import Sequence
from itertools import islice

from pipelines.schedule import DecodeError

BAD_INPUT = (ValueError, OSError, FloatingPointError, DecodeError)
"""What a command reports in a sentence, with exit status 2: the user can do something about it."""


def preset_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with every ``--config FILE`` before the other options, so that these override it.

    A leading subcommand stays in front.
    """
    presets: list[str] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            presets += [argument, *islice(remaining, 1)]
        elif argument.startswith("--config="):
            presets.append(argument)
        else:
            rest.append(argument)
    subcommand = rest[:1] if rest and not rest[0].startswith("-") else []
    return [*subcommand, *presets, *rest[len(subcommand) :]]
