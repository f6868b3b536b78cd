import json
import sys
import tarfile
import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import ROOT, Part, gpu_tests, main, parts, results_of, run_all, to_do

QUIET = [sys.executable, "-c", ""]


def python(name, code, seconds=60, **options):
    return Part(name, [sys.executable, "-c", code], seconds, **options)


def outcomes(results):
    return {name: result.outcome for name, result in results.items()}


def command(monkeypatch, *planned):
    """`main` on a machine with a GPU where these parts are all there is to do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "runs_fp8", lambda device: False)
    monkeypatch.setattr(gpu, "machine", lambda *packages, device: {})
    monkeypatch.setattr(gpu, "parts", lambda rows, **_: list(planned))
    return lambda *arguments: main([str(argument) for argument in arguments])


def test_a_part_that_fails_or_takes_too_long_stops_no_other(tmp_path):
    planned = [
        python("broken", "import sys; print('why'); sys.exit(3)"),
        python("endless", "import time; time.sleep(600)", seconds=0.5),
        python("sound", "print('{}')", report=True),
    ]
    results = run_all(planned, tmp_path, 90)
    assert outcomes(results) == {"broken": "failed", "endless": "out of time", "sound": "passed"}
    assert (tmp_path / "broken.log").read_text() == "why\n"
    assert json.loads((tmp_path / "sound.json").read_text()) == {}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [part["outcome"] for part in summary["parts"]] == ["failed", "out of time", "passed"]


def test_a_part_is_begun_only_with_all_its_time_left(tmp_path, capsys):
    planned = [Part("late", QUIET, 600), Part("short", QUIET, 60)]
    results = run_all(planned, tmp_path, 90)
    assert outcomes(results) == {"late": "not run", "short": "passed"}
    assert results["late"].why == "it may take 600 s, and 90 s are left"
    assert "not run" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("package", ["nvidia.no_such_part", "no_such_package.part"])
def test_what_lacks_a_package_is_left_out_and_the_line_says_why(tmp_path, capsys, package):
    run_all([Part("views", QUIET, 60, needs=("json", package))], tmp_path, 90)
    assert capsys.readouterr().out.split(maxsplit=4)[4] == f"views: {package} is missing\n"
    (result,) = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert (result["outcome"], result["why"]) == ("not run", f"{package} is missing")


def test_another_call_goes_on_with_what_has_not_run_and_then_with_what_failed(tmp_path, monkeypatch):
    done = python("done", "print('once')")
    broken, late = python("broken", "import sys; sys.exit(3)"), python("late", "print('late')", seconds=600)
    run = command(monkeypatch, done, broken, late)
    assert run(tmp_path, "--minutes", 2) == 1
    assert outcomes(results_of(tmp_path)) == {"done": "passed", "broken": "failed", "late": "not run"}
    assert [part.name for part in to_do([done, broken, late], results_of(tmp_path))] == ["late", "broken"]
    (tmp_path / "done.log").write_text("as it was")
    run = command(monkeypatch, done, python("broken", ""), late)
    assert run(tmp_path, "--minutes", 20) == 0
    assert outcomes(results_of(tmp_path)) == {"done": "passed", "broken": "passed", "late": "passed"}
    assert (tmp_path / "done.log").read_text() == "as it was"


def test_what_failed_is_not_forgotten_where_time_is_too_short_to_repeat_it(tmp_path):
    broken = python("broken", "import sys; sys.exit(3)")
    run_all([broken], tmp_path, 90)
    assert outcomes(run_all([broken], tmp_path, 1)) == {"broken": "failed"}


def test_parts_that_are_named_run_though_they_passed(tmp_path, monkeypatch, capsys):
    run = command(monkeypatch, python("one", "print(1)"), python("two", "import sys; sys.exit(3)"))
    assert run(tmp_path, "--only", "one") == 0
    (tmp_path / "one.log").unlink()
    assert run(tmp_path, "--only", "one") == 0
    assert (tmp_path / "one.log").read_text() == "1\n"
    assert outcomes(results_of(tmp_path)) == {"one": "passed"}
    with pytest.raises(SystemExit):
        run(tmp_path, "--only", "three")
    assert "no part three; there are one, two" in " ".join(capsys.readouterr().err.split())


def test_one_archive_holds_all_files_whatever_became_of_the_parts(tmp_path):
    folder = tmp_path / "gpu"
    run_all(
        [python("broken", "import sys; sys.exit(3)"), python("kept", "print(1)", report=True)], folder, 90
    )
    with tarfile.open(tmp_path / "gpu.tar.gz") as archive:
        archive.extractall(tmp_path / "elsewhere", filter="data")
    found = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere" / "gpu").iterdir()}
    assert found == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found.keys() == {"broken.log", "kept.log", "kept.json", "summary.json"}


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
    planned = parts(tmp_path, fp8=True)
    assert len({part.name for part in planned}) == len(planned)
    for word in {word for part in planned for word in part.command}:
        if word.startswith(("tests", "benchmarks/")):
            assert (ROOT / word).exists()
        elif word.startswith("benchmarks."):
            assert (ROOT / f"{word.replace('.', '/')}.py").exists()


def test_the_parts_hold_every_test_that_needs_a_gpu_and_the_small_ones_of_the_kernels(tmp_path):
    planned = parts(tmp_path, fp8=True)
    chosen = {marked: set[str]() for marked in ("gpu", "not gpu")}
    for part in planned:
        if "pytest" in part.command and "tests" in part.name:
            chosen[part.command[part.command.index("-m", 2) + 1]].update(part.command)
    assert set(gpu_tests("tests")) <= chosen["gpu"]
    small = {str(path.relative_to(ROOT)) for path in ROOT.glob("tests/kernels/test_*_triton.py")}
    assert small - {"tests/kernels/test_without_triton.py"} <= chosen["not gpu"]


def test_a_call_of_nine_minutes_has_time_for_any_part(tmp_path):
    assert max(part.seconds for part in parts(tmp_path, fp8=True)) < 9 * 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "needs a CUDA GPU" in capsys.readouterr().err
