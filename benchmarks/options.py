"""The benchmarks' command lines, and options that several of them take."""

import argparse
from typing import Any, NoReturn

from hcl.complaints import sentence


class Parser(argparse.ArgumentParser):
    """A parser that does not accept abbreviated options, like those of the project's commands."""

    def __init__(self, **named: Any) -> None:
        super().__init__(allow_abbrev=False, **named)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, with the name that may have been meant, and exit with status 2."""
        super().error(sentence(message, self))


def add_integers(parser: argparse.ArgumentParser, *options: tuple[str, int, str]) -> None:
    """Add an integer option for each name, default and help text."""
    for name, default, text in options:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
