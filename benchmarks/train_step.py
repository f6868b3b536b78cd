"""One training step against the published one: `python -m benchmarks.train_step` prints one JSON object.

The variants take turns, step by step, so that a noisy machine is noisy for all of them, and medians are
compared. On a GPU this project's step is replayed as a CUDA graph, as in training. The published step
searches with faiss and is left out if faiss is not installed.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from benchmarks.steps import Bench, Parts, Run, build, own_step, published_step
from hcl.models.backbones import BACKBONES
from hcl.precision import Precision, runs_fp8
from kernels.attention import products
from kernels.linear import onednn

WARM_UP = 2
FORMATS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(run: Run, device: torch.device) -> float:
    """Return the seconds of one call, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; a CPU needs no waiting."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(runs: dict[str, Run], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds of every call of every run, without the first rounds, which compile and record."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + WARM_UP):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    return {name: values[WARM_UP:] for name, values in times.items()}


def flops(run: Run) -> int:
    """Count the floating-point operations of a call's matrix products, convolutions and attentions.

    On a CPU, where torch does not count its own attention, attention is written out, with every logit
    computed once.
    """
    own = {torch.ops.mkldnn._linear_pointwise: _product_flops} if onednn.AVAILABLE else {}
    written_out = nullcontext() if torch.cuda.is_available() else sdpa_kernel(SDPBackend.MATH)
    once = patch.object(products, "suits", lambda *_: False)
    with written_out, once, FlopCounterMode(display=False, custom_mapping=own) as counter:
        run()
    return counter.get_total_flops()


def _product_flops(x: torch.Size, weight: torch.Size, *others: object, **named: object) -> int:
    """Count the frozen backbone's products on a CPU, which torch does not count, by the operands' shapes."""
    return 2 * x.numel() * weight[0]


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the operations per second of a large product of torch, the median of some calls."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    times = take_turns({"product": lambda: a @ b}, 7, device)["product"]
    return 2 * side**3 / float(np.median(times))


def peak_mib(options: argparse.Namespace, name: str) -> float | None:
    """Return the peak MiB of a variant's first step beyond weights and views, in a separate process.

    This is what torch allocates on a GPU, and the growth of the resident set on Linux; None elsewhere.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak_of_first_step, options, name).result()


def _peak_of_first_step(options: argparse.Namespace, name: str) -> float | None:
    torch.set_num_threads(options.threads)
    bench = build(options)
    run = variants(bench, options, [name])[name][0]
    if bench.world.device.type == "cuda":
        return allocated_mib(run, bench.world.device)
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    before = psutil.Process().memory_info().rss
    run()
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return peak / 2**10 - before / 2**20


def first_peak(run: Run, name: str, options: argparse.Namespace, device: torch.device) -> float | None:
    """Return the peak MiB of a variant's first step; on a GPU torch reports it in this process."""
    return allocated_mib(run, device) if device.type == "cuda" else peak_mib(options, name)


def allocated_mib(run: Run, device: torch.device) -> float:
    """Return the peak MiB of GPU memory that torch allocates in a call beyond what it held before."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def summary(times: list[float], images: int) -> dict[str, Any]:
    """Return the images per second at the median, and quantiles of the milliseconds."""
    low, middle, high = np.quantile(times, (0.2, 0.5, 0.8)).tolist()
    return {
        "images_per_second": images / middle,
        "ms_20": low * 1e3,
        "ms_50": middle * 1e3,
        "ms_80": high * 1e3,
    }


def names(options: argparse.Namespace) -> list[str]:
    """List the requested variants that can run; the published step needs faiss."""
    own = options.formats or [*FORMATS, *(["fp8"] if runs_fp8(torch.device(options.device)) else [])]
    theirs = ["published"] if find_spec("faiss") else []
    return [*theirs, *own, *(f"{name}_compiled" for name in own if options.compile)]


def variants(
    bench: Bench, options: argparse.Namespace, wanted: Sequence[str]
) -> dict[str, tuple[Run, Callable[[], Parts] | None]]:
    """Build the step of each variant and, for this project's, its parts."""
    built: dict[str, tuple[Run, Callable[[], Parts] | None]] = {}
    for name in wanted:
        if name == "published":
            built[name] = published_step(bench), None
        else:
            precision, _, way = name.partition("_")
            built[name] = own_step(bench, cast(Precision, precision), compiled=way == "compiled")
    return built


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants in turns, then their parts, memory and shares."""
    device = bench.world.device
    built = variants(bench, options, names(options))
    peaks = {name: first_peak(run, name, options, device) for name, (run, _) in built.items()}
    times = take_turns({name: run for name, (run, _) in built.items()}, options.rounds, device)
    split = take_turns(
        {
            f"{name} {part}": run
            for name, (_, parts) in built.items()
            for part, run in (parts()._asdict().items() if parts else ())
        },
        options.rounds,
        device,
    )
    rates = {name: matrix_rate(dtype, device) for name, dtype in FORMATS.items()}
    # In bf16, since torch does not count the heads' products in fp32 on a CPU either.
    counted = {"own": flops(own_step(bench, "bf16", compiled=False)[0])}
    if "published" in built:
        counted["published"] = flops(built["published"][0])
    medians = {name: float(np.median(values)) for name, values in times.items()}
    results = {}
    for name, values in times.items():
        own, rate = name != "published", rates["bf16" if name.startswith(("bf16", "fp8")) else "fp32"]
        results[name] = summary(values, options.batch_size) | {
            "peak_mib": peaks[name],
            "share_of_matrix_rate": counted["own" if own else "published"] / medians[name] / rate,
        }
        if own:
            parts = {part: float(np.median(split[f"{name} {part}"])) * 1e3 for part in Parts._fields}
            results[name]["split_ms"] = parts
    return {
        "flops": counted,
        "matrix_flops_per_second": rates,
        "variants": results,
        **speedups(medians),
    }


def speedups(medians: dict[str, float]) -> dict[str, float]:
    """Return each variant's speed-up over the published step, if that was measured."""
    return {
        f"speedup_{name}": medians["published"] / median
        for name, median in medians.items()
        if "published" in medians and name != "published"
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="dino_vits16")
    add_integers(
        parser,
        ("batch_size", 16, "images in a step"),
        ("size", 224, "pixels a side of a view"),
        ("clusters", 500, "centroids of each bank"),
        ("rounds", 5, "timed steps of each variant"),
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=(*FORMATS, "fp8"),
        help="number formats (default: all that the device supports)",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--no_compile", dest="compile", action="store_false", help="eager variants only")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    report = {
        "machine": machine("torch", "numpy", device=options.device),
        "settings": vars(options),
        **measure(build(options), options),
    }
    return give(report)


if __name__ == "__main__":
    main()
