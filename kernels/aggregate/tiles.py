"""The tiles of the kernels of multi-level token aggregation, and the cases that these must compile for."""

from itertools import product
from typing import Any, NamedTuple

import triton
import triton.language as tl

from kernels.aggregate import triton_kernels
from kernels.configurations import CompileCase

STRIDE_PAIR = ("i32:16", "i32:16")
WIDTHS = (96, 384, 768, 1024)
"""Channels of the documented backbones."""


class Tile(NamedTuple):
    """Rows and channels that a program holds at once, and its warps."""

    rows: int
    block: int
    warps: int


def tile(width: int, rows: int = 4) -> Tile:
    """Choose warps so that a thread holds eight values: one 16-byte load of 16-bit tokens."""
    block = max(triton.next_power_of_2(width), 16)
    return Tile(rows, block, min(max(rows * block // 256, 1), 16))


def aggregate_tile(width: int) -> Tile:
    """Tile of `aggregate_forward`, most of whose programs load four rows one by one."""
    return tile(width)._replace(warps=2 if width <= 512 else 4)


def fuse_tile(width: int, levels: int) -> Tile:
    """Tile of `fuse_forward`: with 16 warps a thread has 128 registers, too few for more than four levels."""
    return tile(width, rows=4 if levels <= 4 else 2)


def backward_tile(width: int) -> Tile:
    """Tile of the backward kernels, which hold sums in addition to the loaded rows."""
    return tile(width, rows=2)


def compile_cases() -> list[CompileCase]:
    """List every kernel at every width and dtype of the documented models, with three to five levels."""
    dtypes = ("fp32", "fp16", "bf16")
    cases = [_aggregate_case(*case) for case in product(WIDTHS, (3, 4, 5), dtypes)]
    cases += [_fuse_case(*case) for case in product((3, 4, 5), dtypes)]
    cases += [_norm_backward_case(width, 1, False, dtype) for width, dtype in product(WIDTHS, dtypes)]
    cases += [_norm_backward_case(768, levels, True, dtype) for levels, dtype in product((3, 4, 5), dtypes)]
    return cases + [_upsample_backward_case(*case) for case in product(WIDTHS, dtypes)]


def _case(
    fn: Any, name: str, arguments: dict[str, Any], constants: dict[str, object], shape: Tile
) -> CompileCase:
    constants = {**constants, "ROWS": shape.rows, "ACC": tl.float32}
    width = "D" if "D" in constants else "E"
    constants[f"BLOCK_{width}"] = shape.block
    signature = {**arguments, **dict.fromkeys(constants, "constexpr")}
    in_order = {argument: signature[argument] for argument in fn.arg_names}
    return CompileCase(
        f"{fn.__name__} {width}={constants[width]} {name}", fn, in_order, constants, shape.warps, 3
    )


def _level_arguments(names: tuple[str, str, str], levels: int, dtype: str, strides: int) -> dict[str, Any]:
    pairs = (STRIDE_PAIR,) * strides
    return dict(zip(names, ((f"*{dtype}",) * levels, pairs, (("i32", "i32"),) * levels), strict=True))


def _aggregate_case(width: int, levels: int, dtype: str) -> CompileCase:
    arguments = {
        "z": f"*{dtype}",
        **_level_arguments(("sequences", "strides", "grids"), levels, dtype, levels),
        **dict.fromkeys(("norm_weight", "norm_bias"), "*fp32"),
        "units": "i32",
    }
    constants: dict[str, object] = {"D": width, "EPS": 1e-6}
    return _case(
        triton_kernels.aggregate_forward, f"L={levels} {dtype}", arguments, constants, aggregate_tile(width)
    )


def _fuse_case(levels: int, dtype: str) -> CompileCase:
    arguments = {
        "out": f"*{dtype}",
        **_level_arguments(("levels", "strides", "grids"), levels, dtype, levels + 1),
        "cls": f"*{dtype}",
        **dict.fromkeys(("norm_weight", "norm_bias"), "*fp32"),
        "total": "i32",
    }
    constants: dict[str, object] = {"E": 768, "EPS": 1e-5}
    shape = fuse_tile(768, levels)
    return _case(triton_kernels.fuse_forward, f"L={levels} {dtype}", arguments, constants, shape)


def _norm_backward_case(width: int, levels: int, cls: bool, dtype: str) -> CompileCase:
    arguments = {
        **dict.fromkeys(("d_sum", "d_out", "cls"), f"*{dtype}"),
        **dict.fromkeys(("d_sum_strides", "d_out_strides"), STRIDE_PAIR),
        **dict.fromkeys(("partial_weight", "partial_bias", "norm_weight"), "*fp32"),
        **_level_arguments(("levels", "strides", "grids"), levels, dtype, levels + cls),
        **dict.fromkeys(("total", "tiles"), "i32"),
    }
    constants: dict[str, object] = {"E": width, "EPS": 1e-5}
    if not cls:
        constants["cls"] = None
    return _case(
        triton_kernels.norm_backward, f"L={levels} {dtype}", arguments, constants, backward_tile(width)
    )


def _upsample_backward_case(width: int, dtype: str) -> CompileCase:
    arguments = {
        **dict.fromkeys(("d_source", "d_target"), f"*{dtype}"),
        **dict.fromkeys(("source_strides", "target_strides"), STRIDE_PAIR),
        **dict.fromkeys(("source_grid", "target_grid"), ("i32", "i32")),
    }
    return _case(triton_kernels.upsample_backward, dtype, arguments, {"E": width}, backward_tile(width))
