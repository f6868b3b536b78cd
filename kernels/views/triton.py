"""Photometric views in Triton: all pixel-wise changes in one pass, blur and halving by matrix products.

Blur and halving are linear along each axis, so that both together are one matrix R of S rows for each view;
the matrix units compute the view as R Y R^T, however wide the blur. Colours are normalised before, which is
possible because R's rows sum to 1. The products have fixed tiles: a library's could round differently in
another batch.
"""

import torch
import triton
from torch import Tensor

from kernels.configurations import CompileCase
from kernels.dispatch import TRITON_INTERPRETED
from kernels.precision import without_autocast
from kernels.views.colours import DRAWS
from kernels.views.triton_kernels import grey_kernel, halving_kernel, jitter_kernel, product_kernel

# Half a level of 255 is four times float16's rounding error.
PIXEL_DTYPE = torch.float32 if TRITON_INTERPRETED else torch.float16
HUE, SIGMA = 3, 4
GREY_PIXELS, HALVING_ROWS = 4096, 4
TILE = {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 64}
WARPS, STAGES = 4, 3


def photometric_views(
    doubled: Tensor, draws: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Jitter, blur, halve and normalise. (V, B, 3, S, S) float32."""
    with without_autocast(doubled):
        return views_op(doubled, draws.contiguous(), list(mean), list(std))


@torch.library.custom_op("hcl_kernels::photometric_views", mutates_args=())
def views_op(doubled: Tensor, draws: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """`photometric_views` as a torch operator."""
    views = _empty_views(doubled, draws, mean, std)
    if not views.numel():
        return views
    doubled = doubled.contiguous()
    count, (batch, side) = len(draws), doubled.shape[:2]
    pixels = doubled.new_empty(count * batch, 3, side, side, dtype=PIXEL_DTYPE)
    halves = pixels.new_empty(count * batch, side // 2, side)
    narrow = pixels.new_empty(count * batch, 3, side // 2, side)
    block = triton.next_power_of_2(side)
    hue = draws[..., HUE].deg2rad()
    turns = torch.stack([hue.cos(), hue.sin()], dim=2)
    shift, scale = tuple(mean), tuple(1 / value for value in std)
    with torch.cuda.device_of(doubled):
        jitter_kernel[(batch * side,)](
            *(pixels, doubled, draws, _mean_greys(doubled, draws), turns, shift, scale, batch, side),
            V=count,
            DRAWS=DRAWS,
            BLOCK=block,
            num_warps=WARPS,
        )
        halving_kernel[(count * batch, triton.cdiv(side // 2, HALVING_ROWS))](
            halves, draws, side, SIGMA=SIGMA, DRAWS=DRAWS, ROWS=HALVING_ROWS, BLOCK=block, num_warps=WARPS
        )
        _multiply(narrow, halves, pixels, (side // 2, side, side), SHARED=3, TRANSPOSED=False)
        _multiply(views, narrow, halves, (3 * side // 2, side // 2, side), SHARED=1, TRANSPOSED=True)
    return views


@views_op.register_fake
def _empty_views(doubled: Tensor, draws: Tensor, mean: list[float], std: list[float]) -> Tensor:
    batch, side = doubled.shape[:2]
    return doubled.new_empty(len(draws), batch, 3, side // 2, side // 2)


def _mean_greys(doubled: Tensor, draws: Tensor) -> Tensor:
    """Compute the mean grey (V, B) of every view after its brightness change."""
    count, (batch, side) = len(draws), doubled.shape[:2]
    blocks = triton.cdiv(side * side, GREY_PIXELS)
    sums = doubled.new_empty(count, batch, blocks)
    grey_kernel[(batch, blocks)](
        *(sums, doubled, draws, batch, side * side), V=count, DRAWS=DRAWS, BLOCK=GREY_PIXELS, num_warps=WARPS
    )
    # In float64, so that the order of the sum, which torch may choose by the batch, does not show.
    return (sums.sum(dim=2, dtype=torch.float64) / side**2).float()


def _multiply(out: Tensor, a: Tensor, b: Tensor, sizes: tuple[int, int, int], **how: int) -> None:
    """Fill out with products of matrices (M, K) of a and (K, N) of b, which may be transposed."""
    rows, columns, _ = sizes
    tiles = triton.cdiv(rows, TILE["BLOCK_M"]) * triton.cdiv(columns, TILE["BLOCK_N"])
    # One axis, since the others hold at most 65,535 programs. Neighbouring tiles of a product share operands.
    grid = (out.numel() // (rows * columns) * tiles,)
    product_kernel[grid](out, a, b, *sizes, **TILE, **how, num_warps=WARPS, num_stages=STAGES)


def compile_cases() -> list[CompileCase]:
    """List all kernels for one view and two of 224 pixels, and both products."""
    cases = [_case(jitter_kernel, f"V={count}", _pixel_constants(count, 512)) for count in (1, 2)]
    cases += [_case(grey_kernel, f"V={count}", _pixel_constants(count, GREY_PIXELS)) for count in (1, 2)]
    halving: dict[str, object] = {"SIGMA": SIGMA, "DRAWS": DRAWS, "ROWS": HALVING_ROWS, "BLOCK": 512}
    cases.append(_case(halving_kernel, "", halving))
    products = ({"SHARED": 3, "TRANSPOSED": False}, {"SHARED": 1, "TRANSPOSED": True})
    return cases + [_case(product_kernel, f"SHARED={how['SHARED']}", {**TILE, **how}) for how in products]


def _pixel_constants(count: int, block: int) -> dict[str, object]:
    return {"V": count, "DRAWS": DRAWS, "BLOCK": block}


def _case(kernel: "triton.runtime.JITFunction", name: str, constants: dict[str, object]) -> CompileCase:
    first = constants.get("SHARED") != 1
    kinds: dict[str, object] = dict.fromkeys(
        ("image_ptr", "draw_ptr", "grey_ptr", "turn_ptr", "sum_ptr"), "*fp32"
    )
    kinds |= {"out_ptr": "*fp16" if first else "*fp32", "a_ptr": "*fp16", "b_ptr": "*fp16"}
    kinds |= dict.fromkeys(("shift", "scale"), ("fp32",) * 3) | dict.fromkeys(("M", "N", "K"), "i32:16")
    kinds |= {"B": "i32", "SIDE": "i32:16", "PIXELS": "i32:16"}
    kinds |= dict.fromkeys(constants, "constexpr")
    signature = {argument: kinds[argument] for argument in kernel.arg_names}
    return CompileCase(f"{kernel.__name__} {name}".strip(), kernel, signature, constants, WARPS, STAGES)
