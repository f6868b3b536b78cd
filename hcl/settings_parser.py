"""A parser of settings with short help and short errors: one line of usage, one sentence per error."""

import argparse
import re
import sys
from typing import Any, Literal, NoReturn, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from hcl.complaints import WORDS, addressed, describe, sentence, without_union

set_parsing_settings(add_print_completion_argument=True)


class SettingsHelp(DefaultHelpFormatter):
    """Help without redundant parts: types that a default or the choices show, and empty defaults."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        kind = getattr(action, "_typehint", None)
        shown = action.default is not None or get_origin(kind) is Literal
        words = "" if shown else describe(kind)
        return words if words not in ("", WORDS[str]) else None

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action).replace("type: %(type)s", "%(type)s")
        if action.default is None or action.default == "":
            text = re.sub(r",? ?default: %\(default\)s", "", text).replace(" ()", "")
        return text


class SettingsParser(ArgumentParser):
    """A command line of settings from configuration dataclasses."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        # An abbreviation would change its meaning once another setting begins with the same letters.
        super().__init__(*positional, formatter_class=SettingsHelp, allow_abbrev=False, **named)

    def add_settings(
        self,
        config_class: type,
        positional: tuple[str, str] | None = None,
        words: tuple[str, str] | None = None,
    ) -> None:
        """Add the fields of a dataclass; for a switch, ``--name`` alone means ``--name true``.

        One string field may be positional, and one field that is a list of strings may take several words;
        each of the two is given as its name and help text.
        """
        if positional:
            self.add_argument(positional[0], type=str, help=positional[1])
        if words:
            self.add_argument(f"--{words[0]}", nargs="*", type=str, default=[], help=words[1])
        self.add_class_arguments(config_class, skip={given[0] for given in (positional, words) if given})
        for action in self._actions:
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True
            if action.help and action.help.startswith("Path to a configuration file"):
                action.help = argparse.SUPPRESS  # it reads one group of settings; --config reads all
            if "--print_config" in action.option_strings:
                action.help = (
                    "print the settings as a file for --config and exit (=skip_default: only changed ones)"
                )
        preset = ["[--config PRESET]"] if "--config" in self._option_string_actions else []
        required = [_shown(action) for action in self._actions if action.required]
        self.usage = " ".join(["%(prog)s", *preset, *required]) + "\n           [--SETTING VALUE ...]"

    def add_command(self, commands: Any, name: str, parser: "SettingsParser", summary: str) -> None:
        """Add a subcommand; its messages show the name that the user types."""
        commands.add_subcommand(name, parser, help=summary)
        parser.prog = f"{self.prog} {name}"

    def instantiate(self, *positional: Any, **named: Any) -> Any:
        """Return the settings as dataclasses; a ValueError says why one of these refused its values."""
        try:
            return super().instantiate(*positional, **named)
        except ValueError as error:
            raise ValueError(without_union(str(error))) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong in a sentence on stderr, and end with exit status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        complaint = sentence(message, parser)
        parser = addressed(message, parser)
        print(f"{parser.prog}: {complaint} ({_help_of(parser)})", file=sys.stderr)
        sys.exit(2)


def _shown(action: argparse.Action) -> str:
    name = action.dest.rpartition(".")[2].upper()
    return " ".join([*action.option_strings[:1], name])


def _help_of(parser: argparse.ArgumentParser) -> str:
    python = "python " if parser.prog.split()[0].endswith(".py") else ""
    return f"see {python}{parser.prog} --help"
