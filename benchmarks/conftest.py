"""What the benchmarks share: `pytest benchmarks/bench_*.py --benchmark-only`, `--rows` says where rows go.

Without a GPU the same files run at toy sizes, Triton in its interpreter: an exercise, of which no rows are
kept.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from benchmarks.harness import RESULTS, Row, Run, measure, write_rows

MEASURED = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take `--rows FOLDER`."""
    parser.addoption("--rows", type=Path, default=RESULTS, help="folder of the rows measured on a GPU")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is measured yet. pytest-benchmark chooses what runs; it does not measure, and so warns."""
    config.stash[MEASURED] = []
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print median, share of the roofline, and what it is of, for every row."""
    for row in config.stash[MEASURED]:
        terminalreporter.write_line(
            f"{row.ms_50:12.3f} ms {row.roofline_share:7.1%}  {row.name} {row.impl} {row.shape}"
        )


@pytest.fixture(autouse=True)
def as_if_alone() -> Iterator[None]:
    """Nothing of one benchmark helps or hinders the next: memory, or code compiled for other shapes."""
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
        row = measure(name, impl, shape, setup, bytes_moved, flops)
        pytestconfig.stash[MEASURED].append(row)
        if torch.cuda.is_available():
            write_rows([row], pytestconfig.getoption("--rows"))

    return recorded
