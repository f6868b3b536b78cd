"""Where DALI is not installed, what reads no images works, and what does says which extra is missing."""

import json
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.engine.support import arguments, tiny_run, write_tiny_scenes

COMMANDS = ["hcl.commands.train", "hcl.commands.evaluate", "hcl.export.__main__"]
BLOCKED = """
import importlib, io, json, sys
from contextlib import redirect_stderr, redirect_stdout

sys.modules["nvidia"] = None
for module, arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = importlib.import_module(module).main(arguments)
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


class Ended(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str


def without_dali(*commands: tuple[str, list[str]]) -> list[Ended]:
    """What comes of commands, one after another in one process: modules and their arguments."""
    command = [sys.executable, "-c", BLOCKED, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [Ended(*json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def helped() -> dict[str, Ended]:
    """What each command says that is asked for help."""
    return dict(zip(COMMANDS, without_dali(*((module, ["--help"]) for module in COMMANDS)), strict=True))


@pytest.mark.parametrize("module", COMMANDS)
def test_help_needs_no_dali(helped, module):
    assert helped[module].status == 0, helped[module].err
    assert "usage: " in helped[module].out


def test_training_and_scoring_name_the_extra(tmp_path):
    write_tiny_scenes(tmp_path / "scenes")
    settings = tiny_run(tmp_path / "scenes", tmp_path / "run")
    scored = {name: settings[name] for name in ("data.kind", "data.root", "data.split", "backbone.name")}
    score = ["overcluster", "--tokens", "backbone", "--output", str(tmp_path / "scores"), *arguments(scored)]
    for ended in without_dali(("hcl.commands.train", arguments(settings)), ("hcl.commands.evaluate", score)):
        assert ended.status == 2, ended.err
        (line,) = ended.err.splitlines()
        assert "needs NVIDIA DALI, which is not installed: pip install '.[cpu]'" in line
    assert not (tmp_path / "run" / "log.jsonl").exists()
