"""The completion script, in the shell that it is for."""

import shutil
import subprocess
from pathlib import Path

import pytest

from hcl.commands import evaluate, train
from hcl.export.__main__ import main as export

COMMANDS = {"train.py": train.main, "evaluate.py": evaluate.main, "hcl-export": export}
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> dict[str, Path]:
    """The script of each command."""
    folder = tmp_path_factory.mktemp("completion")
    capture = pytest.MonkeyPatch()
    made = {}
    for name, command in COMMANDS.items():
        printed: list[str] = []
        capture.setattr("builtins.print", lambda text, printed=printed: printed.append(text))
        with pytest.raises(SystemExit, match="0"):
            command(["--print_completion", "shtab-bash"])
        capture.undo()
        made[name] = folder / f"{name}.bash"
        made[name].write_text("\n".join(printed))
    return made


def completions(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    name = words[0].replace(".", "_")
    line = (
        f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_{name}; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", line, "bash", *words], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train.py", "--optimiser.l"], ["--optimiser.lr"]),
        (["train.py", "--data.kind", "v"], ["voc"]),
        (["train.py", "--epochs", "3", "--precision", ""], ["fp32", "bf16", "fp8"]),
        (["train.py", "--compile", "t"], ["true"]),
        (["evaluate.py", "over"], ["overcluster"]),
        (["evaluate.py", "overcluster", "--label_r"], ["--label_resolution"]),
        (["evaluate.py", "cluster", "--branch", "o"], ["online"]),
        (["evaluate.py", "baseline", "retr"], ["retrieval"]),
        (["evaluate.py", "baseline", "retrieval", "--neigh"], ["--neighbours"]),
    ],
)
def test_bash_completes_commands_settings_and_choices(scripts, words, expected):
    assert completions(scripts[words[0]], *words) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_the_script_is_one_that_bash_can_read(scripts, command):
    assert subprocess.run(["bash", "-n", str(scripts[command])]).returncode == 0
