"""Attention within concatenated sequences: torch's own, once per sequence, and Triton."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from benchmarks.harness import Run
from kernels.attention import attend

GPU = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float16)


class Case(NamedTuple):
    """Images, tokens of each sequence, heads and their width."""

    batch: int
    lengths: tuple[int, ...]
    heads: int = 6
    width: int = 64


# ViT-S/16 at 224 and 448 pixels, ViT-S/8 at both, and the head at 224.
SHAPES = [
    Case(128, (197, 50, 17)),
    Case(1024, (197, 50, 17)),
    Case(128, (785, 197, 65)),
    Case(128, (785, 197, 50, 17)),
    Case(32, (3137, 785, 197, 65)),
    Case(512, (196,), heads=12),
]
CASES = SHAPES if GPU else [Case(2, (5, 3), 2, 16)]


def describe(case: Case) -> str:
    return f"B={case.batch} N={'+'.join(map(str, case.lengths))} heads={case.heads} d={case.width}"


@pytest.mark.parametrize("impl", ["eager", "triton"])
@pytest.mark.parametrize("case", CASES, ids=describe)
def test_attend(record: Callable[..., None], case: Case, impl: str) -> None:
    def setup() -> Run:
        shape = (case.batch, sum(case.lengths), 3, case.heads, case.width)
        qkv, chosen = torch.randn(shape, device=DEVICE).to(DTYPE), "triton" if impl == "triton" else "torch"
        return lambda: attend(qkv, case.lengths, impl=chosen)

    width = case.batch * case.heads * case.width
    flops = 4 * width * sum(length**2 for length in case.lengths)
    record("attend", impl, describe(case), setup, 4 * width * sum(case.lengths) * DTYPE.itemsize, flops)
