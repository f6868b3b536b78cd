import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import hcl
from hcl.command_line import preset_first, reported
from hcl.commands import evaluate, train
from hcl.export import __main__ as export
from hcl.presets import find_preset
from hcl.settings_parser import SettingsParser


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--lr=1", "--config", "a.yaml"], ["--config", "a.yaml", "--lr=1"]),
        (["--lr", "1", "--config=a.yaml", "--x"], ["--config=a.yaml", "--lr", "1", "--x"]),
        (["linear", "--lr=1", "--config", "a.yaml"], ["linear", "--config", "a.yaml", "--lr=1"]),
        (
            ["baseline", "cluster", "--x", "--config=a.yaml"],
            ["baseline", "cluster", "--config=a.yaml", "--x"],
        ),
        (["--help"], ["--help"]),
        (["--config"], ["--config"]),
        ([], []),
    ],
)
def test_options_come_after_the_preset_that_they_override(given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").touch()
    assert preset_first(given) == expected


def test_the_name_of_a_preset_stands_for_its_file():
    assert preset_first(["--config", "voc_vits16"]) == ["--config", find_preset("voc_vits16")]
    assert "backbone: {name: dino_vits16}" in Path(find_preset("voc_vits16")).read_text()


def test_a_file_comes_before_the_preset_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("voc_vits16").touch()
    assert find_preset("voc_vits16") == "voc_vits16"


def test_an_unknown_preset_is_named_with_those_that_exist():
    with pytest.raises(FileNotFoundError, match=r"no configuration voc: .*YAML file.*quickstart.*voc_vits8"):
        preset_first(["--config=voc"])


@pytest.mark.parametrize("command", [train, evaluate, export])
def test_every_command_tells_its_version(command, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        command.build_parser().parse_args(["--version"])
    assert capsys.readouterr().out.split()[-1] == hcl.__version__


@pytest.mark.parametrize("subcommand", ["", "segment", "baseline retrieval"])
def test_a_subcommand_imports_no_other(subcommand):
    """For some import libraries that take seconds, which help and the rest should not wait for."""
    every = evaluate.PROTOCOLS | evaluate.COMMANDS
    asked_for = subcommand.split()
    own = {every[name].module for name in asked_for[-1:]}
    build = f"evaluate.build_parser({asked_for})"
    program = f"import sys; from hcl.commands import evaluate; {build}; print(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {command.module for command in every.values()} & set(ran.stdout.split()) == own


def of_ours() -> int:
    """As where a caller gets shapes wrong."""
    return int("seven")


@pytest.mark.parametrize(("value", "shown"), [(None, False), ("0", False), ("", False), ("1", True)])
def test_where_an_error_arose_is_shown_to_who_asks(monkeypatch, capsys, value, shown):
    if value is None:
        monkeypatch.delenv("HCL_TRACEBACK", raising=False)
    else:
        monkeypatch.setenv("HCL_TRACEBACK", value)
    assert reported("program", of_ours) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("program: invalid literal")
    assert any("in of_ours" in line for line in lines) == shown
    assert (len(lines) > 1) == shown


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
    parser = SettingsParser()
    parser.add_settings(Settings)
    assert Settings(**vars(parser.parse_args(given))) == expected
