from dataclasses import dataclass

import pytest
from jsonargparse import ArgumentParser

from hcl.command_line import add_settings, preset_first


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--lr=1", "--config", "a.yaml"], ["--config", "a.yaml", "--lr=1"]),
        (["--lr", "1", "--config=a.yaml", "--x"], ["--config=a.yaml", "--lr", "1", "--x"]),
        (["linear", "--lr=1", "--config", "a"], ["linear", "--config", "a", "--lr=1"]),
        (["baseline", "cluster", "--x", "--config=a"], ["baseline", "cluster", "--config=a", "--x"]),
        (["--help"], ["--help"]),
        (["--config"], ["--config"]),
        ([], []),
    ],
)
def test_options_come_after_the_preset_that_they_override(given, expected):
    assert preset_first(given) == expected


@dataclass
class Settings:
    """Some settings.

    Args:
        crf: a switch.
        seeds: a number.
    """

    crf: bool = False
    seeds: int = 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--crf"], Settings(crf=True)),
        (["--crf", "--seeds", "3"], Settings(crf=True, seeds=3)),
        (["--crf", "true"], Settings(crf=True)),
        (["--crf=false"], Settings()),
        ([], Settings()),
    ],
)
def test_a_switch_may_stand_alone(given, expected):
    parser = ArgumentParser()
    add_settings(parser, Settings)
    assert Settings(**vars(parser.parse_args(given))) == expected
