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


def add_settings(
    parser: ArgumentParser,
    config_class: type,
    positional: tuple[str, str] | None = None,
    words: tuple[str, str] | None = None,
) -> None:
    """Add the fields of a configuration dataclass; for a switch, ``--name`` alone means ``--name true``.

    One field, a string, may be positional, and one, a list of strings, may take several words: each by its
    name and help.
    """
    if positional:
        parser.add_argument(positional[0], type=str, help=positional[1])
    if words:
        parser.add_argument(f"--{words[0]}", nargs="*", type=str, default=[], help=words[1])
    parser.add_class_arguments(config_class, skip={given[0] for given in (positional, words) if given})
    for action in parser._actions:
        if getattr(action, "_typehint", None) is bool:
            action.nargs, action.const = "?", True
