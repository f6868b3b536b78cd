import json
import sys
import time

import pytest
import torch

from benchmarks.gpu import ROOT, Part, main, parts, run_all

QUIET = [sys.executable, "-c", ""]


def python(name, code, seconds=60, **options):
    return Part(name, [sys.executable, "-c", code], seconds, **options)


def outcomes(results):
    return {result.name: result.outcome for result in results}


def test_a_part_that_fails_or_takes_too_long_stops_no_other(tmp_path):
    planned = [
        python("broken", "import sys; print('why'); sys.exit(3)"),
        python("endless", "import time; time.sleep(600)", seconds=0.5),
        python("sound", "print('{}')", report=True),
    ]
    results = run_all(planned, tmp_path, 60)
    assert outcomes(results) == {"broken": "failed", "endless": "out of time", "sound": "passed"}
    assert (tmp_path / "broken.log").read_text() == "why\n"
    assert json.loads((tmp_path / "sound.json").read_text()) == {}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [part["outcome"] for part in summary["parts"]] == ["failed", "out of time", "passed"]


def test_what_there_is_no_time_for_is_said_to_have_not_run(tmp_path):
    assert outcomes(run_all([Part("late", QUIET, 60)], tmp_path, 1)) == {"late": "not run"}


def test_processes_that_a_part_started_end_with_it(tmp_path):
    code = (
        "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read()"
    )
    code = code.replace("sys.stdin.read()", "__import__('time').sleep(600)")
    run_all([python("parent", code, seconds=3)], tmp_path, 60)
    status = ROOT.joinpath("/proc", (tmp_path / "parent.log").read_text().strip(), "stat")
    until = time.monotonic() + 10
    while status.exists() and status.read_text().split()[2] != "Z" and time.monotonic() < until:
        time.sleep(0.05)
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_every_part_names_files_that_are_there(tmp_path):
    planned = parts(tmp_path)
    assert len({part.name for part in planned}) == len(planned)
    for word in {word for part in planned for word in part.command}:
        if word.startswith(("tests", "benchmarks/")):
            assert (ROOT / word).exists()
        elif word.startswith("benchmarks."):
            assert (ROOT / f"{word.replace('.', '/')}.py").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "needs a CUDA GPU" in capsys.readouterr().err
