"""The tiles of the contrastive loss, and the cases that its kernels must compile for.

Hopper multiplies in groups of four warps (wgmma), with operands that need no registers, and therefore has
tiles of its own, the fastest of those timed on an H200. Where shared memory is scarce, only narrower tokens
stay on the chip.
"""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import torch
import triton

from kernels.configurations import CRAMPED, HOPPER, NOT_HOPPER, CompileCase
from kernels.fba.triton_kernels import fba_bwd_kernel, fba_fwd_kernel
from kernels.tl_utils import DOT_PRECISION, POINTERS, TL_DTYPES

# The widest 16-bit tokens that stay on the chip while their bank is streamed.
RESIDENT_WIDTH, CRAMPED_RESIDENT_WIDTH = 256, 128


class Tiles(NamedTuple):
    """Tokens, centroids and columns of a tile, warps, depth of the pipeline, columns of a gradient tile."""

    tokens: int
    clusters: int
    columns: int
    warps: int
    stages: int
    gradient_columns: int = 0


def forward_tiles(width: int, dtype: torch.dtype, *, hopper: bool, cramped: bool) -> Tiles:
    """Choose the forward kernel's tiles by the tokens' width, the products' dtype and the GPU."""
    padded = _padded(width)
    if dtype == torch.float32:
        return Tiles(64, 64, 32, 4, 3) if hopper else Tiles(64, 64, 16, 8, 3)
    if padded <= (CRAMPED_RESIDENT_WIDTH if cramped else RESIDENT_WIDTH):
        return Tiles(128, 64, padded, 8, 3 if hopper else 2)
    return Tiles(128, 64, 64, 8, 2)


def backward_tiles(width: int, dtype: torch.dtype, *, hopper: bool, cramped: bool) -> Tiles:
    """Choose the backward kernel's tiles; the gradient tile takes registers that are free in forward."""
    padded = _padded(width)
    if dtype == torch.float32:
        # With 128 gradient columns Triton 3.7 makes an empty kernel for sm_100; masks take registers, and
        # sm_89 has none to spare.
        columns = min(padded, 64 if width % 64 == 0 and not cramped else 32)
        return Tiles(64, 64, 16, 4, 2, columns) if hopper else Tiles(64, 32, 16, 8, 2, columns)
    if padded <= RESIDENT_WIDTH:
        return Tiles(128 if hopper else 64, 64, padded, 8, 2, padded)
    return Tiles(128, 64, 64, 8, 2, 128)


def gradient_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the backward products: weights of short centroids are too large for float16."""
    return torch.float32 if dtype == torch.float16 else dtype


def _padded(width: int) -> int:
    return max(triton.next_power_of_2(width), 16)


def constants(tile: Tiles, width: int, dtype: torch.dtype) -> dict[str, object]:
    """Return the compile-time constants of a kernel."""
    found: dict[str, object] = {
        "C": width,
        "BLOCK_M": tile.tokens,
        "BLOCK_K": tile.clusters,
        "BLOCK_C": tile.columns,
        "DTYPE": TL_DTYPES[dtype],
        "PRECISION": DOT_PRECISION,
    }
    return found | ({"BLOCK_G": tile.gradient_columns} if tile.gradient_columns else {})


def compile_cases() -> list[CompileCase]:
    """List both kernels at every configuration that the documented sizes choose."""
    kernels = ((fba_fwd_kernel, forward_tiles), (fba_bwd_kernel, backward_tiles))
    others = tuple(target for target in NOT_HOPPER if target not in CRAMPED)
    widths = (100, 256, 384, 768, 1024)
    return [
        _case(kernel, choose, width, dtype, targets)
        for targets, (kernel, choose), dtype, width in product(
            (CRAMPED, others, HOPPER), kernels, POINTERS, widths
        )
    ]


def _case(
    kernel: Any, choose: Callable[..., Tiles], width: int, dtype: torch.dtype, targets: tuple[str, ...]
) -> CompileCase:
    multiplied = gradient_dtype(dtype) if kernel is fba_bwd_kernel else dtype
    tile = choose(width, multiplied, hopper=targets == HOPPER, cramped=targets == CRAMPED)
    compiled_for = constants(tile, width, multiplied)
    kinds = dict.fromkeys(("q_ptr", "k_ptr", "c_ptr", "grad_q_ptr"), POINTERS[dtype])
    kinds |= dict.fromkeys(("square_ptr", "scale_ptr", "loss_ptr", "lse_ptr", "grad_loss_ptr"), "*fp32")
    kinds |= dict.fromkeys(("token_ptr", "count_fg_ptr", "assignment_ptr"), "*i64")
    kinds |= dict.fromkeys(("M", "K_fg", "K"), "i32") | dict.fromkeys(compiled_for, "constexpr")
    signature = {name: kinds[name] for name in kernel.arg_names}
    name = f"{kernel.__name__} C={width} {POINTERS[dtype][1:]} {targets[0]}"
    return CompileCase(name, kernel, signature, compiled_for, tile.warps, tile.stages, targets)
