"""All that only a GPU can show, in one call: `python -m benchmarks.gpu FOLDER` tests, measures and sums up.

Every part is a process of its own with a limit of time: one that fails or takes too long stops no other. What
matters most comes first, so that a short call is of use. FOLDER gets a log of each part, the rows that the
kernels' benchmarks measure (CSV), the reports of the others (JSON), and ``summary.json``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from benchmarks.machine import machine
from benchmarks.options import Parser

ROOT = Path(__file__).parents[1]
KERNELS = ("fba", "kmeans", "aggregate", "foreground", "crf")
LEAST_SECONDS = 10.0
"""A part is not begun with less time left."""

Outcome = Literal["passed", "failed", "out of time", "not run"]


class Part(NamedTuple):
    """A command, run in the project's folder, and how many seconds it may take.

    With ``report`` what it prints is a report, and goes to a file of its own.
    """

    name: str
    command: list[str]
    seconds: float
    report: bool = False


@dataclass(frozen=True)
class Result:
    """What became of a part."""

    name: str
    command: str
    outcome: Outcome
    seconds: float


def parts(rows: Path) -> list[Part]:
    """What there is to do, the most valuable first; rows of benchmarks go to a folder."""
    # Elsewhere in tests/ nothing needs a GPU, but packages that a machine may lack.
    tests = ["-m", "pytest", "-m", "gpu", "--continue-on-collection-errors"]
    rest = ["tests/engine", "tests/models", "tests/pipelines"]
    step = ["-m", "benchmarks.train_step", "--device", "cuda", "--batch_size", "64"]
    return [
        _python("tests_kernels", *tests, "tests/kernels", seconds=180),
        _python("tests_rest", *tests, *rest, "-k", "not max-autotune", seconds=180),
        _python("train_step", *step, "--no_compile", seconds=150, report=True),
        *(_benchmark(name, "triton", rows, seconds=60) for name in KERNELS),
        _python("pipeline", "-m", "benchmarks.pipeline", seconds=120, report=True),
        _python("scale", "-m", "benchmarks.scale", "--device", "cuda", seconds=120, report=True),
        _python("tests_autotuned", *tests, *rest, "-k", "max-autotune", seconds=600),
        _python("train_step_compiled", *step, seconds=900, report=True),
        *(_benchmark(name, "not triton", rows, seconds=900) for name in KERNELS),
    ]


def _python(name: str, *arguments: str, seconds: float, report: bool = False) -> Part:
    return Part(name, [sys.executable, *arguments], seconds, report)


def _benchmark(kernel: str, impl: str, rows: Path, *, seconds: float) -> Part:
    return _python(
        f"{kernel}_{impl.replace(' ', '_')}",
        *("-m", "pytest", f"benchmarks/bench_{kernel}.py", "--benchmark-only", "-k", impl),
        *("--rows", str(rows)),
        seconds=seconds,
    )


def run(part: Part, folder: Path, left: float) -> Result:
    """Run a part for as long as it may and there is time left; its output goes to files of its name."""
    command = " ".join(part.command)
    if left < min(LEAST_SECONDS, part.seconds):
        return Result(part.name, command, "not run", 0.0)
    started = time.perf_counter()
    with (folder / f"{part.name}.log").open("wb") as log:
        printed = (folder / f"{part.name}.json").open("wb") if part.report else log
        process = subprocess.Popen(part.command, cwd=ROOT, stdout=printed, stderr=log, start_new_session=True)
        outcome: Outcome
        try:
            outcome = "failed" if process.wait(min(part.seconds, left)) else "passed"
        except subprocess.TimeoutExpired:
            outcome = "out of time"
        finally:
            # What it started itself, too: a session of its own is a group of its own.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            printed.close()
    return Result(part.name, command, outcome, time.perf_counter() - started)


def run_all(planned: Sequence[Part], folder: Path, seconds: float) -> list[Result]:
    """Run parts until the time is over; ``summary.json`` is written anew after each."""
    folder.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    described = machine("torch", "triton", device=device)
    until, results = time.perf_counter() + seconds, list[Result]()
    for part in planned:
        result = run(part, folder, until - time.perf_counter())
        results.append(result)
        print(f"{result.outcome:>11} {result.seconds:6.0f} s  {result.name}", flush=True)
        summary = {"machine": described, "parts": [asdict(result) for result in results]}
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 where every part passed, 1 where one did not, 2 without a GPU."""
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("folder", type=Path, help="where logs, rows, reports and the summary go")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts (default 9)")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA GPU, and torch sees none", file=sys.stderr)
        return 2
    folder = options.folder.resolve()
    results = run_all(parts(folder / "rows"), folder, options.minutes * 60)
    return int(any(result.outcome != "passed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
