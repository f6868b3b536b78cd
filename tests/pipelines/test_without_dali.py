"""Where DALI is not installed, what reads no images works, and what does says which extra is missing."""

import subprocess
import sys

import pytest

from tests.engine.support import arguments, tiny_run, write_tiny_scenes

BLOCKED = "import sys; sys.modules['nvidia'] = None; from {} import main; sys.exit(main(sys.argv[1:]))"
COMMANDS = ["hcl.commands.train", "hcl.commands.evaluate", "hcl.export.__main__"]


def started(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED.format(module), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_needs_no_dali(module):
    ended = started(module, "--help")
    assert ended.returncode == 0, ended.stderr
    assert "usage: " in ended.stdout


def test_training_and_scoring_name_the_extra(tmp_path):
    write_tiny_scenes(tmp_path / "scenes")
    settings = tiny_run(tmp_path / "scenes", tmp_path / "run")
    scored = {name: settings[name] for name in ("data.kind", "data.root", "data.split", "backbone.name")}
    score = ["overcluster", "--tokens", "backbone", "--output", str(tmp_path / "scores"), *arguments(scored)]
    for ended in (
        started("hcl.commands.train", *arguments(settings)),
        started("hcl.commands.evaluate", *score),
    ):
        assert ended.returncode == 2, ended.stderr
        (line,) = ended.stderr.splitlines()
        assert "needs NVIDIA DALI, which is not installed: pip install '.[cpu]'" in line
    assert not (tmp_path / "run" / "log.jsonl").exists()
