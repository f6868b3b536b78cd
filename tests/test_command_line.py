import pytest

from hcl.command_line import preset_first


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--lr=1", "--config", "a.yaml"], ["--config", "a.yaml", "--lr=1"]),
        (["--lr", "1", "--config=a.yaml", "--x"], ["--config=a.yaml", "--lr", "1", "--x"]),
        (["linear", "--lr=1", "--config", "a"], ["linear", "--config", "a", "--lr=1"]),
        (["--help"], ["--help"]),
        (["--config"], ["--config"]),
        ([], []),
    ],
)
def test_options_come_after_the_preset_that_they_override(given, expected):
    assert preset_first(given) == expected
