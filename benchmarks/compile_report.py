"""Compile every Triton kernel for several GPUs, without a GPU: `python -m benchmarks.compile_report`.

Prints registers, spills and shared memory of every kernel at every configuration that its launcher can choose
for the documented sizes, with the limits of each GPU. The exit status is 1 if shared memory overflows, if a
kernel spills on an NVIDIA GPU, or if it stores nothing. The whole report keeps every processor busy for many
minutes; the tests run `--largest`, one case of every kernel on all targets.
"""

import importlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.options import Parser
from kernels.configurations import CompileCase
from kernels.processors import usable_processors

MODULES = tuple(
    f"kernels.{name}.triton"
    for name in ("aggregate", "attention", "crf", "fba", "foreground", "kmeans", "linear", "views")
)


@dataclass(frozen=True)
class Target:
    """A GPU architecture and the bytes of shared memory that one block can use."""

    backend: str
    arch: int | str
    warp_size: int
    shared_limit: int


TARGETS = {
    "sm_80": Target("cuda", 80, 32, 163 * 1024),
    "sm_89": Target("cuda", 89, 32, 99 * 1024),
    "sm_90": Target("cuda", 90, 32, 227 * 1024),
    "sm_100": Target("cuda", 100, 32, 227 * 1024),
    "gfx942": Target("hip", "gfx942", 64, 64 * 1024),
}


@dataclass(frozen=True)
class Usage:
    """Registers and spills of a thread, and bytes of shared memory of a block.

    Spills are bytes of local memory on NVIDIA GPUs, and spilled vector registers on AMD's. A kernel without
    stores does nothing: the compiler can fail silently, and the empty kernel would fit any GPU.
    """

    registers: int
    spills: int
    shared: int
    stores: bool = True


Row = tuple[str, str, Usage, bool]


def compile_cases(pattern: str = "") -> list[CompileCase]:
    """Return the cases of all kernel modules whose names match a regular expression."""
    cases = [case for module in MODULES for case in importlib.import_module(module).compile_cases()]
    return [case for case in cases if re.search(pattern, case.name)]


def largest(cases: Sequence[CompileCase]) -> list[CompileCase]:
    """Return one case per kernel and set of targets: the one that its module lists last, the largest."""
    return list({(case.fn, case.targets): case for case in cases}.values())


def compile_usage(case: CompileCase, target: Target) -> Usage:
    """Compile one case and read its resources."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    attrs = {path: [list(pair) for pair in pairs] for path, pairs in case.attrs.items()}
    compiled = triton.compile(
        ASTSource(case.fn, case.types, dict(case.constexprs), attrs),
        target=GPUTarget(target.backend, target.arch, target.warp_size),
        options={"num_warps": case.num_warps, "num_stages": case.num_stages},
    )
    nvidia = target.backend == "cuda"
    assembly = compiled.asm["ptx" if nvidia else "amdgcn"]
    registers, spills = _nvidia_usage(compiled.asm["cubin"]) if nvidia else _amd_usage(assembly)
    stores = re.search(r"st\.global|(global|buffer|flat)_store", assembly) is not None
    return Usage(registers, spills, compiled.metadata.shared, stores)


def _nvidia_usage(cubin: bytes) -> tuple[int, int]:
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2]) + int(found[3])


def _amd_usage(assembly: str) -> tuple[int, int]:
    counts = [re.search(rf"\.{name}:\s+(\d+)", assembly) for name in ("vgpr_count", "vgpr_spill_count")]
    registers, spills = (int(found[1]) for found in counts if found)
    return registers, spills


def fits(usage: Usage, target: Target) -> bool:
    """Return whether a kernel stores anything, its shared memory fits and, on NVIDIA, nothing spills."""
    spills = target.backend == "cuda" and usage.spills > 0
    return usage.stores and usage.shared <= target.shared_limit and not spills


@cache
def _case_named(name: str) -> CompileCase:
    return next(case for case in compile_cases() if case.name == name)


def _row(name: str, target: str) -> Row:
    usage = compile_usage(_case_named(name), TARGETS[target])
    return name, target, usage, fits(usage, TARGETS[target])


def report(cases: Sequence[CompileCase], targets: Sequence[str], jobs: int) -> list[Row]:
    """Return name, target, resources and whether they fit, of every case on every target that uses it."""
    pairs = [
        (case.name, target)
        for case, target in product(cases, targets)
        if not case.targets or target in case.targets
    ]
    # By name, since kernels cannot be pickled.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = pool.map(_row, *zip(*pairs, strict=True))
        return list(tqdm(rows, total=len(pairs), unit="kernel", disable=None))


def as_table(rows: Sequence[Row]) -> Table:
    """Format the report, with a line for each case and target."""
    table = Table("kernel", "target", box=None, pad_edge=False)
    for heading in ("registers", "spills", "shared (B)", "limit (B)", ""):
        table.add_column(heading, justify="right")
    for case, name, usage, fit in rows:
        numbers = (usage.registers, usage.spills, usage.shared, TARGETS[name].shared_limit)
        table.add_row(case, name, *map(str, numbers), "" if fit else "DOES NOT FIT")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = Parser(prog="python -m benchmarks.compile_report", description=__doc__)
    parser.add_argument("--kernel", default="", help="only cases whose name matches this regular expression")
    parser.add_argument(
        "--target", choices=TARGETS, action="append", help="only this target; may be repeated"
    )
    parser.add_argument(
        "--jobs", type=int, default=usable_processors(), help="processes (default: one per processor)"
    )
    parser.add_argument("--largest", action="store_true", help="only the largest case of each kernel")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 is set: interpreted kernels cannot be compiled; unset it")
    cases = compile_cases(options.kernel)
    if not cases:
        parser.error(f"no kernel's name matches {options.kernel!r}")
    cases = largest(cases) if options.largest else cases
    rows = report(cases, options.target or list(TARGETS), options.jobs)
    Console(width=None if sys.stdout.isatty() else 120).print(as_table(rows))
    misfits = sum(not fit for *_, fit in rows)
    print(f"{len(cases)} kernels, {len(rows)} compiled, {misfits} do not fit")
    return int(misfits > 0)


if __name__ == "__main__":
    sys.exit(main())
