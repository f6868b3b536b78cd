"""Damaged checkpoints, full and read-only disks, a clock moved back, two runs in one folder."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hcl.commands import train
from hcl.engine.checkpoint import Checkpoints
from hcl.engine.run_folder import claimed
from tests.engine.support import arguments, saved_state
from tests.faults.struck import struck
from tests.faults.victim import ROOT

HOLD = """
import sys
from pathlib import Path
from hcl.engine.run_folder import claimed

with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def stop_after(settings: dict, step: int) -> None:
    """Leave a run that was told to end in a step."""
    with struck("step", step, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert train.main(arguments(settings)) == 143


@pytest.fixture
def interrupted(settings) -> Path:
    """The folder of a run of which five of nine steps are done."""
    stop_after(settings, 5)
    return Path(settings["output"])


@pytest.fixture
def holder(tmp_path):
    """A process that has the folder of the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "mine\n"
    yield process
    process.communicate()


def test_a_truncated_checkpoint_is_passed_over_and_the_run_comes_to_the_same_bits(
    interrupted, continues, capsys
):
    newest = interrupted / "checkpoint.pt"
    os.truncate(newest, newest.stat().st_size // 2)
    assert continues()
    told = capsys.readouterr().err
    assert f"passed over: {newest} is damaged" in told
    assert "from epoch 2, step 2" in told


def test_two_checkpoints_with_flipped_bits_are_passed_over(interrupted, continues, capsys):
    for path in Checkpoints(interrupted).existing()[:2]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
    assert continues()
    assert capsys.readouterr().err.count("in it does not match") == 2


def test_a_full_disk_ends_the_run_with_a_sentence_and_leaves_what_was_saved(settings, continues, capsys):
    """A limit on the size of files fails as a full disk does, in the midst of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # noqa: E731
    try:
        with struck("step", 5, fill):
            assert train.main(arguments(settings)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train.py: ")
    assert settings["output"] in last
    assert "File too large" in last
    saved = saved_state(settings["output"])
    assert (saved["epoch"], saved["step"]) == (1, 1)
    assert continues()


def test_a_full_disk_cuts_the_log_short_and_the_continued_run_mends_it(settings, continues):
    """The limit falls into the midst of a line of log.jsonl."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = Path(settings["output"]) / "log.jsonl"
    fill = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 20, hard))  # noqa: E731
    try:
        with struck("step", 5, fill):
            assert train.main(arguments(settings)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not log.read_text().endswith("\n")
    assert continues()
    steps = [record["step"] for record in map(json.loads, log.read_text().splitlines()) if "loss" in record]
    assert steps == list(range(1, 10))


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(settings, monkeypatch, capsys):
    monkeypatch.setattr(train, "Trainer", None)
    assert train.main(arguments(settings | {"output": "/proc/hcl"})) == 2
    assert "output folder /proc/hcl cannot be written to" in capsys.readouterr().err


def test_a_clock_that_was_moved_back_changes_nothing(interrupted, continues, monkeypatch):
    future = time.time() + 10 * 365 * 86400
    for path in interrupted.iterdir():
        os.utime(path, (future, future))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 365 * 86400)
    assert continues()


def test_a_second_run_in_the_folder_is_refused_by_name(settings, holder, capsys):
    assert train.main(arguments(settings)) == 2
    error = capsys.readouterr().err
    assert settings["output"] in error
    assert f"process {holder.pid}" in error
    assert not (Path(settings["output"]) / "log.jsonl").exists()


def test_a_killed_run_leaves_no_lock(settings, holder):
    holder.kill()
    holder.wait()
    with claimed(Path(settings["output"])):
        pass
