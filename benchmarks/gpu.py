"""All tests and benchmarks that need a GPU, with a summary: `python -m benchmarks.gpu FOLDER`.

Every part is a separate process with a time limit, so that one that fails or takes too long does not stop the
others. The most important parts come first, so that a short call is useful, and another call with the same
folder continues: parts that passed are not run again, and parts that have not run yet come before those that
failed. FOLDER gets a log of each part, the rows of the kernels' benchmarks (CSV), the reports of the others
(JSON), and ``summary.json``; FOLDER.tar.gz holds all of it and is renewed after every part.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from benchmarks.machine import machine
from benchmarks.options import Parser
from hcl.files import written_whole
from hcl.precision import runs_fp8
from kernels.processors import usable_processors

ROOT = Path(__file__).parents[1]
KERNELS = ("fba", "kmeans", "attention", "linear", "views", "aggregate", "foreground", "crf")

Outcome = Literal["passed", "failed", "out of time", "not run"]


class Part(NamedTuple):
    """A command, run in the project's folder, and its time limit in seconds.

    With ``report`` its output is a report and goes to a file of its own. It is not run if a package that it
    ``needs`` is missing.
    """

    name: str
    command: list[str]
    seconds: float
    report: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """The outcome of a part, and why it was not run."""

    name: str
    command: str
    outcome: Outcome
    seconds: float
    why: str = ""


Results = dict[str, Result]


def parts(rows: Path, *, fp8: bool, photographs: Sequence[Path] = ()) -> list[Part]:
    """List the parts, the most valuable first.

    Args:
        rows: folder for the rows of benchmarks.
        fp8: whether the GPU supports FP8.
        photographs: files for the CRF; without any, scenes are generated.
    """
    scenes = ("--photographs", *map(str, photographs)) if photographs else ("--images", "10")
    return [
        # A process each: after an error on the device, a process can do nothing more there.
        *(_tests(f"tests_{name}", "not gpu", _file(name), seconds=150) for name in KERNELS),
        _step("train_step_64", 64, "fp32", "bf16", "--no_compile", seconds=150),
        _step("train_step_512", 512, "fp32", "bf16", "--no_compile", seconds=180),
        _benchmark("fba", "triton", rows, seconds=150),
        *(_benchmark(name, "triton", rows, seconds=90) for name in KERNELS[1:]),
        _tests("tests_large", "gpu", *gpu_tests("tests/kernels"), seconds=180),
        _tests("tests_rest", "gpu", *_elsewhere(), "-k", "not max-autotune", seconds=180),
        _tests("tests_curves", "not gpu", "tests/engine/test_curves.py", seconds=180),
        _step("train_step_compiled", 64, "bf16", seconds=300),
        *([_step("train_step_fp8", 64, "fp8", seconds=300)] if fp8 else []),
        _module("crf_agreement", *scenes, seconds=240, needs=("pydensecrf",)),
        _module("training_run", "--device", "cuda", seconds=240, needs=("nvidia.dali", "jsonargparse")),
        _module("pipeline", seconds=180, needs=("nvidia.dali",)),
        _module("scale", "--device", "cuda", seconds=240, needs=("nvidia.dali", "jsonargparse")),
        *(_benchmark(name, "not triton", rows, seconds=300) for name in KERNELS),
        _step("train_step_compiled_fp32", 64, "fp32", seconds=300),
        _tests("tests_autotuned", "gpu", *_elsewhere(), "-k", "max-autotune", seconds=480),
    ]


def gpu_tests(folder: str) -> list[str]:
    """List the test files that need a GPU: the others need packages that a machine may lack."""
    files = sorted((ROOT / folder).rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "pytest.mark.gpu" in file.read_text()]


def _elsewhere() -> list[str]:
    return [file for file in gpu_tests("tests") if not file.startswith("tests/kernels/")]


def _file(kernel: str) -> str:
    return f"tests/kernels/test_{kernel}_triton.py"


def _tests(name: str, marked: str, *arguments: str, seconds: float) -> Part:
    # Most of their time goes into compiling, on one core each.
    spread = ("-n", str(min(usable_processors(), 12))) if _installed("xdist") else ()
    # With the names of tests, so that the log of a part that ran out of time shows how far it got.
    return _python(name, "-m", "pytest", "-vv", "-m", marked, *spread, *arguments, seconds=seconds)


def _step(name: str, images: int, *formats_and_options: str, seconds: float) -> Part:
    options = ("--device", "cuda", "--batch_size", str(images), "--formats", *formats_and_options)
    return _python(name, "-m", "benchmarks.train_step", *options, seconds=seconds, report=True)


def _module(name: str, *options: str, seconds: float, needs: tuple[str, ...]) -> Part:
    return _python(name, "-m", f"benchmarks.{name}", *options, seconds=seconds, report=True, needs=needs)


def _benchmark(kernel: str, impl: str, rows: Path, *, seconds: float) -> Part:
    return _python(
        f"{kernel}_{impl.replace(' ', '_')}",
        *("-m", "pytest", f"benchmarks/bench_{kernel}.py", "--benchmark-only", "-k", impl),
        *("--rows", str(rows)),
        seconds=seconds,
        needs=("pydensecrf",) if kernel == "crf" and impl != "triton" else (),
    )


def _python(name: str, *arguments: str, seconds: float, **how: Any) -> Part:
    return Part(name, [sys.executable, *arguments], seconds, **how)


def to_do(planned: Sequence[Part], earlier: Results) -> list[Part]:
    """Return the parts that have not passed; those that never ran come first."""
    left = [part for part in planned if part.name not in earlier or earlier[part.name].outcome != "passed"]
    return sorted(left, key=lambda part: part.name in earlier and earlier[part.name].outcome != "not run")


def obstacle(part: Part, left: float) -> str:
    """Return why a part cannot be run now; empty if it can."""
    if missing := [name for name in part.needs if not _installed(name)]:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    if left < part.seconds:
        return f"it may take {part.seconds:.0f} s, and {left:.0f} s are left"
    return ""


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def run(part: Part, folder: Path, left: float) -> Result:
    """Run a part, if possible and if its whole time is left; its output goes to files of its name."""
    command = " ".join(part.command)
    if why := obstacle(part, left):
        return Result(part.name, command, "not run", 0.0, why)
    started = time.perf_counter()
    with (folder / f"{part.name}.log").open("wb") as log:
        printed = (folder / f"{part.name}.json").open("wb") if part.report else log
        process = subprocess.Popen(part.command, cwd=ROOT, stdout=printed, stderr=log, start_new_session=True)
        outcome: Outcome
        try:
            outcome = "failed" if process.wait(part.seconds) else "passed"
        except subprocess.TimeoutExpired:
            outcome = "out of time"
        finally:
            # Its child processes too: the new session is a process group of its own.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            printed.close()
    return Result(part.name, command, outcome, time.perf_counter() - started)


def run_all(planned: Sequence[Part], folder: Path, seconds: float) -> Results:
    """Run parts until the time is over; after each part, write the summary and pack the folder again.

    Returns the outcomes of all parts, including those of earlier calls.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    described = machine("torch", "triton", device=device)
    until, results = time.perf_counter() + seconds, results_of(folder)
    for part in planned:
        result = run(part, folder, until - time.perf_counter())
        why = f": {result.why}" if result.why else ""
        print(f"{result.outcome:>11} {result.seconds:6.0f} s  {result.name}{why}", flush=True)
        if result.outcome != "not run" or part.name not in results:
            results[part.name] = result
        _keep(described, results, folder)
    return results


def results_of(folder: Path) -> Results:
    """Return the outcomes of the parts in earlier calls."""
    summary = folder / "summary.json"
    found = json.loads(summary.read_text())["parts"] if summary.exists() else []
    return {result["name"]: Result(**result) for result in found}


def _keep(described: dict[str, Any], results: Results, folder: Path) -> None:
    summary = {"machine": described, "parts": [asdict(result) for result in results.values()]}
    with written_whole(folder / "summary.json") as file:
        file.write((json.dumps(summary, indent=2) + "\n").encode())
    with (
        written_whole(folder.with_name(f"{folder.name}.tar.gz")) as file,
        tarfile.open(fileobj=file, mode="w:gz") as archive,
    ):
        archive.add(folder, folder.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if all requested parts passed, 1 if one did not, 2 without a GPU."""
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("folder", type=Path, help="where logs, rows, reports and the summary go")
    parser.add_argument("--minutes", type=float, default=9.0, help="minutes for all parts (default 9)")
    parser.add_argument(
        "--photographs", type=Path, nargs="+", default=[], metavar="FILE.npz", help="as for crf_agreement"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these parts, even if they passed")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA GPU, and torch sees none", file=sys.stderr)
        return 2
    folder = options.folder.resolve()
    fp8, scenes = runs_fp8(torch.device("cuda")), [path.resolve() for path in options.photographs]
    planned = {part.name: part for part in parts(folder / "rows", fp8=fp8, photographs=scenes)}
    if unknown := set(options.only or ()) - set(planned):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(planned)}")
    asked = [planned[name] for name in options.only or planned]
    chosen = asked if options.only else to_do(asked, results_of(folder))
    results = run_all(chosen, folder, options.minutes * 60)
    return int(any(results[part.name].outcome != "passed" for part in asked))


if __name__ == "__main__":
    sys.exit(main())
