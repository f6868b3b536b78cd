"""The block sizes of the dense CRF's kernels, and the cases of the compile report."""

from dataclasses import replace

import triton
import triton.language as tl
from triton.runtime.jit import JITFunction

from kernels.configurations import CompileCase
from kernels.crf.tiles import BLOCK
from kernels.crf.triton_kernels import (
    crf_filter_kernel,
    crf_gaussian_kernel,
    crf_near_kernel,
    crf_sums_kernel,
    crf_update_kernel,
)

WARPS = 4
STAGES = 3
FILTER_STAGES = 5
UPDATE_WARPS = 8
BLOCK_T = 256
BLOCK_L, BLOCK_M = 16, 32
# The data sets' numbers of classes, with two widths of a slot, and a large number.
CLASSES = (21, 27, 171)
KINDS = {
    "value_ptr": "*fp16",
    **dict.fromkeys(("out_ptr", "low_ptr", "high_ptr", "scale_ptr"), "*fp32"),
    **dict.fromkeys(("unary_ptr", "sum_ptr", "gaussian_ptr", "weight_ptr"), "*fp32"),
    **dict.fromkeys(("near_ptr", "count_ptr"), "*i32"),
    "slot_ptr": "*i64",
    **dict.fromkeys(("C", "N", "T", "L", "M", "stride_l", "stride_m", "reach"), "i32"),
    "S": "i32:16",
    **dict.fromkeys(("farthest", "gaussian_compat", "bilateral_compat"), "fp32"),
}


def value_width(classes: int) -> int:
    """Return the number of values in a slot: whole 16-byte words."""
    return triton.cdiv(classes, 8) * 8


def class_block(width: int, products: bool) -> int:
    """Return the number of classes that a filter program sums: all, up to what the registers hold."""
    return min(max(triton.next_power_of_2(width), 16), 128 if products else 64)


def sums_warps(products: bool) -> int:
    """Return the warps for row sums: differences, without the matrix units' layout, need more registers."""
    return WARPS if products else 2 * WARPS


def update_blocks(classes: int) -> tuple[int, int]:
    """Return the pixels and classes of an update program: all classes, for the softmax over them."""
    block_c = max(triton.next_power_of_2(classes), 16)
    return max(1024 // block_c, 4), block_c


def compile_cases() -> list[CompileCase]:
    """List every kernel, with weights by differences and by products, without messages and with them."""
    return [
        _case(crf_near_kernel, "", {"BLOCK_T": BLOCK_T}),
        *(_sums_case(products) for products in (False, True)),
        *(_filter_case(products, classes) for products in (False, True) for classes in CLASSES),
        *(_gaussian_case(along_rows) for along_rows in (False, True)),
        *(_update_case(messages, classes) for messages in (False, True) for classes in CLASSES),
    ]


def _way(products: bool) -> tuple[str, dict[str, object]]:
    return "products" if products else "differences", {"BLOCK": BLOCK, "PRODUCTS": products}


def _sums_case(products: bool) -> CompileCase:
    case = _case(crf_sums_kernel, *_way(products), DTYPE=tl.float16)
    return replace(case, num_warps=sums_warps(products))


def _filter_case(products: bool, classes: int) -> CompileCase:
    name, constants = _way(products)
    width = value_width(classes)
    blocks = {"WIDTH": width, "BLOCK_C": class_block(width, products)}
    case = _case(crf_filter_kernel, f"C={classes} {name}", constants, **blocks)
    return replace(case, num_stages=FILTER_STAGES)


def _gaussian_case(along_rows: bool) -> CompileCase:
    # The pixels of a row are contiguous; Triton makes a stride of 1 a constant.
    constants = {"stride_l" if along_rows else "stride_m": 1, "PRECISION": "bf16x6"}
    blocks = {"BLOCK_L": BLOCK_L, "BLOCK_M": BLOCK_M}
    case = _case(crf_gaussian_kernel, "rows" if along_rows else "columns", {**constants, **blocks})
    return replace(case, signature={**case.signature, "value_ptr": "*fp32"})


def _update_case(messages: bool, classes: int) -> CompileCase:
    block_n, block_c = update_blocks(classes)
    blocks = {"WIDTH": value_width(classes), "BLOCK_N": block_n, "BLOCK_C": block_c, "MESSAGES": messages}
    absent = {} if messages else {"gaussian_ptr": None, "sum_ptr": None}
    name = f"C={classes} {'messages' if messages else 'unary'}"
    return replace(_case(crf_update_kernel, name, {**blocks, **absent}), num_warps=UPDATE_WARPS)


def _case(fn: JITFunction, name: str, constants: dict[str, object], **more: object) -> CompileCase:
    constants = constants | more
    operand = "*fp16" if constants.get("PRODUCTS") else "*fp32"
    kinds = {
        **KINDS,
        **dict.fromkeys(("row_ptr", "column_ptr"), operand),
        **dict.fromkeys(constants, "constexpr"),
    }
    signature = {argument: kinds[argument] for argument in fn.arg_names}
    return CompileCase(f"{fn.__name__} {name}".strip(), fn, signature, constants, WARPS, STAGES)
