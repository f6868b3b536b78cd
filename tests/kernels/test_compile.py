import os
import subprocess
import sys

from benchmarks.compile_report import TARGETS, Usage, fits


def run_report(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.compile_report", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_largest_case_of_every_kernel_fits_every_target():
    report = run_report("--largest")
    assert report.returncode == 0, report.stdout + report.stderr
    assert all(target in report.stdout for target in TARGETS)


def test_too_much_shared_memory_and_spills_do_not_fit():
    limit = TARGETS["gfx942"].shared_limit
    assert fits(Usage(registers=64, spills=4, shared=limit), TARGETS["gfx942"])
    assert not fits(Usage(registers=64, spills=0, shared=limit + 1), TARGETS["gfx942"])
    assert not fits(Usage(registers=64, spills=4, shared=0), TARGETS["sm_90"])


def test_a_kernel_that_stores_nothing_does_not_fit():
    assert not fits(Usage(registers=4, spills=0, shared=0, stores=False), TARGETS["sm_100"])


def test_unknown_kernels_are_named():
    report = run_report("--kernel", "no such kernel")
    assert report.returncode == 2
    assert "no such kernel" in report.stderr
