"""Measurement of kernels: one row per shape and implementation, compared with the peak rates of the device.

A GPU is timed by CUDA events, with its cache flushed before each call and long calls timed less often; a CPU
by the clock. The peak rates, of a large copy and a large matrix product, are measured in the same process: no
datasheet is needed.
"""

import csv
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import processor

RESULTS = Path(__file__).parent / "results"
GPU_SECONDS, FEWEST_CALLS, MOST_CALLS = 2.0, 5, 50
"""How long a call is timed on a GPU, and the fewest and the most times."""
Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: what was computed.
        impl: the implementation.
        shape: shape of the inputs, for human readers.
        device, torch, triton: the device, and the versions of torch and Triton.
        ms_20, ms_50, ms_80: quantiles of the time of a call.
        peak_mib: peak memory of a call beyond its inputs; None on a CPU, where it is not measured.
        bytes_moved: the fewest bytes that must be read and written.
        flops: floating-point operations of matrix products.
        copy_gb_s: measured rate of a copy, read and written bytes together.
        matrix_tflop_s: measured rate of a matrix product, bfloat16 on a GPU and float32 on a CPU.
        roofline_share: the time that bytes and flops take at these rates, over the median time.
    """

    name: str
    impl: str
    shape: str
    device: str
    torch: str
    triton: str
    ms_20: float
    ms_50: float
    ms_80: float
    peak_mib: float | None
    bytes_moved: int
    flops: int
    copy_gb_s: float
    matrix_tflop_s: float
    roofline_share: float


@dataclass(frozen=True)
class Ceilings:
    """Peak rates of the device, in bytes and floating-point operations per second."""

    copy: float
    matrix: float


def measure(name: str, impl: str, shape: str, run: Run, bytes_moved: int, flops: int = 0) -> Row:
    """Measure the time and memory of a call.

    Args:
        name: what is computed.
        impl: the implementation.
        shape: the inputs' shape, for human readers.
        run: the call to be measured, which holds its inputs.
        bytes_moved: the fewest bytes that the call must read and write.
        flops: the floating-point operations of its matrix products.
    """
    milliseconds = np.quantile(times(run), (0.2, 0.5, 0.8)) * 1e3
    limits = ceilings()
    floor = max(bytes_moved / limits.copy, flops / limits.matrix) * 1e3
    return Row(
        name=name,
        impl=impl,
        shape=shape,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        torch=torch.__version__,
        triton=_version("triton"),
        ms_20=float(milliseconds[0]),
        ms_50=float(milliseconds[1]),
        ms_80=float(milliseconds[2]),
        peak_mib=peak_memory(run),
        bytes_moved=bytes_moved,
        flops=flops,
        copy_gb_s=limits.copy / 1e9,
        matrix_tflop_s=limits.matrix / 1e12,
        roofline_share=floor / float(milliseconds[1]),
    )


def compiled(function: Callable[..., Any], *, fullgraph: bool = True) -> Callable[..., Any]:
    """Compile a function with torch.compile; on a CPU, where this is a mere check, without Inductor."""
    backend = "inductor" if torch.cuda.is_available() else "aot_eager"
    return torch.compile(function, fullgraph=fullgraph, backend=backend)


def times(run: Run) -> list[float]:
    """Return the seconds of each of many calls, after warm-up."""
    return _times_on_gpu(run) if torch.cuda.is_available() else _times_on_cpu(run)


def _times_on_gpu(run: Run) -> list[float]:
    """Time calls after two that do not count: the first compiles, the second decides how many are timed."""
    run()
    (once,) = _timed_by_events(run, 1)
    return _timed_by_events(run, calls_for(once))


def calls_for(seconds: float) -> int:
    """Return how often a call of this duration is timed on a GPU."""
    return int(np.clip(GPU_SECONDS / max(seconds, 1e-9), FEWEST_CALLS, MOST_CALLS))


def _timed_by_events(run: Run, calls: int) -> list[float]:
    flush = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for start, end in events:
        flush.zero_()
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def _times_on_cpu(run: Run, calls: int = 5) -> list[float]:
    run()
    marks = [time.perf_counter()]
    for _ in range(calls):
        run()
        marks.append(time.perf_counter())
    return np.diff(marks).tolist()


def peak_memory(run: Run) -> float | None:
    """Return the peak MiB of one call beyond what is held before it; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


@cache
def ceilings() -> Ceilings:
    """Measure the device's rates of copying and of multiplying matrices, once per process."""
    gpu = torch.cuda.is_available()
    device, dtype, side = ("cuda", torch.bfloat16, 8192) if gpu else ("cpu", torch.float32, 256)
    source = torch.randn(2**28 if gpu else 2**20, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / np.median(times(lambda: target.copy_(source)))
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    matrix = 2 * side**3 / np.median(times(lambda: a @ b))
    return Ceilings(float(copy), float(matrix))


def write_rows(rows: Sequence[Row], folder: Path = RESULTS) -> Path:
    """Append rows to <folder>/<device>.csv, whole or not at all; returns the file."""
    slug = re.sub(r"[^a-z0-9]+", "-", rows[0].device.lower()).strip("-")
    path = folder / f"{slug}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    earlier = path.read_text() if path.exists() else ",".join(field.name for field in fields(Row)) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", newline="", delete=False) as file:
        file.write(earlier)
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writerows(asdict(row) for row in rows)
    os.replace(file.name, path)
    return path


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
