"""Bars on terminals alone, results on stdout alone, colours as asked, and a tidy end by Ctrl-C."""

import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from hcl.commands import evaluate, train
from hcl.evaluation.tokens import TokenExtractor
from tests.engine.conftest import scenes_root, tiny_settings
from tests.engine.support import arguments
from tests.evaluation.conftest import QUICK

__all__ = ["scenes_root", "tiny_settings"]

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def scoring(scenes_root, tmp_path) -> list[str]:
    """A protocol on four scenes."""
    return [
        *("overcluster", "--data.kind", "scenes", "--data.root", str(scenes_root), "--data.split", "val"),
        *("--backbone.name", "tiny", "--head.width", "24", "--head.hidden", "8", "--clusters", "6"),
        *("--output", str(tmp_path / "out"), "--device", "cpu", "--size", "64", *QUICK["overcluster"]),
    ]


def test_training_shows_on_a_terminal_what_it_is_at_and_how_long_yet(tiny_settings, capsys):
    with redirect_stderr(Terminal()) as terminal:
        assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    shown = terminal.getvalue()
    for bar in ("bank 1/1: ", "k-means 1/1: ", "epoch 1/1: "):
        assert f"\r{bar}" in shown
    assert "100%" in shown
    assert "image/s" in shown
    assert capsys.readouterr().out == ""


def test_evaluation_shows_on_a_terminal_what_it_is_at(scoring, capsys):
    with redirect_stderr(Terminal()) as terminal:
        assert evaluate.main(scoring) == 0
    for bar in ("tokens of scenes-val: ", "k-means, K = 6: "):
        assert f"\r{bar}" in terminal.getvalue()
    assert "\r" not in capsys.readouterr().out


def test_a_pipe_gets_lines_alone(tiny_settings, scoring, capsys):
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "12 images, 3 steps per epoch" in printed.err
    assert "\r" not in printed.err
    assert evaluate.main(scoring) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "K = 6" in printed.out
    assert "\x1b" not in printed.out


def test_colours_may_be_forced_and_forbidden(scoring, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert evaluate.main(scoring) == 0
    assert "\x1b[1m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert evaluate.main(scoring) == 0
    assert "\x1b[3" not in capsys.readouterr().out.replace("\x1b[3m", "")


def test_ctrl_c_ends_an_evaluation_in_a_line_and_leaves_nothing_half_done(
    scoring, tmp_path, monkeypatch, capsys
):
    def strike(*_) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TokenExtractor, "__call__", strike)
    # A shell starts what is to run in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert evaluate.main([*scoring, "--keep_tokens", "false"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluate.py: interrupted; ")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_ctrl_c_is_told_by_one_rank(scoring, monkeypatch, capsys):
    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(evaluate, "score", interrupted)
    assert evaluate.main(scoring) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("module", ["train", "evaluate"])
def test_ctrl_c_while_everything_is_imported_is_a_line_too(module, tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr == f"{module}.py: interrupted; nothing had begun yet\n"
