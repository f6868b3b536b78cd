"""Options that several benchmarks take."""

import argparse


def add_integers(parser: argparse.ArgumentParser, *options: tuple[str, int, str]) -> None:
    """Add an option of an integer for each name, default and help."""
    for name, default, text in options:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
