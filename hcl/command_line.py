"""What the project's commands share."""

from collections.abc import Sequence
from itertools import islice, takewhile

from jsonargparse import ArgumentParser

from pipelines.schedule import DecodeError

BAD_INPUT = (ValueError, OSError, FloatingPointError, DecodeError)
"""What a command reports in a sentence, with exit status 2: the user can do something about it."""


def preset_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with every ``--config FILE`` before the other options, so that these override it.

    Leading subcommands stay in front.
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
    subcommands = list(takewhile(lambda argument: not argument.startswith("-"), rest))
    return [*subcommands, *presets, *rest[len(subcommands) :]]


def add_settings(parser: ArgumentParser, config_class: type, *, but: frozenset[str] = frozenset()) -> None:
    """Add the fields of a configuration dataclass; for a switch, ``--name`` alone means ``--name true``.

    Args:
        parser: to add them to.
        config_class: the dataclass.
        but: fields to leave out, because the command line has them in another form.
    """
    parser.add_class_arguments(config_class, skip=set(but))
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const = "?", True
