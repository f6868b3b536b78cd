"""Fixtures of `pytest benchmarks/bench_*.py --benchmark-only`; `--rows` sets the folder of the rows.

Without a GPU the same files run at toy sizes, with Triton in its interpreter: only a check that they run, of
which no rows are kept.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from benchmarks.harness import RESULTS, Run, measure, write_rows


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--rows FOLDER`."""
    parser.addoption("--rows", type=Path, default=RESULTS, help="folder of the rows measured on a GPU")


@pytest.fixture(autouse=True)
def as_if_alone() -> Iterator[None]:
    """Free memory and compiled code after each benchmark, so that none affects the next."""
    yield
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@pytest.fixture
def record(benchmark: Any, pytestconfig: pytest.Config) -> Callable[..., None]:
    """`record(name, impl, shape, setup, bytes_moved, flops)` measures, and on a GPU writes the row."""

    def recorded(
        name: str, impl: str, shape: str, setup: Callable[[], Run], bytes_moved: int, flops: int = 0
    ) -> None:
        run = setup()
        row = measure(name, impl, shape, run, bytes_moved, flops)
        benchmark.extra_info.update(impl=impl, shape=shape, roofline_share=row.roofline_share)
        benchmark.pedantic(_waited_for(run), rounds=3)
        if torch.cuda.is_available():
            write_rows([row], pytestconfig.getoption("--rows"))

    return recorded


def _waited_for(run: Run) -> Run:
    def waited() -> None:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return waited
