"""Multi-level token aggregation: every level's tokens brought to the finest grid (HCL, sections 1 and 2)."""

from collections.abc import Sequence
from types import ModuleType

from torch import Tensor

from kernels.aggregate import reference
from kernels.aggregate.grid import Grid
from kernels.dispatch import choose

__all__ = ["Grid", "aggregate_tokens", "fuse_tokens"]


def aggregate_tokens(
    sequences: Sequence[Tensor],
    grids: Sequence[Grid],
    norm_weight: Tensor,
    norm_bias: Tensor,
    *,
    eps: float = 1e-6,
    impl: str = "auto",
) -> Tensor:
    """Normalise, upsample and concatenate the tokens of all levels (HCL, section 1, step 4).

    Args:
        sequences: L tensors (B, 1 + h_l * w_l, D), [CLS] and row-major patches, before the backbone's
            final LayerNorm; the finest level first.
        grids: the L pairs (h_l, w_l).
        norm_weight: (D,), weight of the final LayerNorm, of the sequences' dtype.
        norm_bias: (D,), its bias.
        eps: epsilon of the final LayerNorm.
        impl: "auto", "torch" or "triton".

    Returns:
        (B, h_0 * w_0, (L + 1) * D): the levels in order, upsampled bilinearly (align_corners=False), then
        level 0's CLS repeated at every position.

    Raises:
        ValueError: sequences and grids disagree, the norm's parameters are not (D,), or the sequences are not
            floating point of one dtype.
    """
    width = _check_levels(sequences, grids)
    _check_shape("norm_weight", norm_weight, (width,))
    _check_shape("norm_bias", norm_bias, (width,))
    chosen = _implementation(impl, *sequences, norm_weight, norm_bias)
    return chosen.aggregate_tokens(sequences, grids, norm_weight, norm_bias, eps)


def fuse_tokens(
    sequences: Sequence[Tensor],
    grids: Sequence[Grid],
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *,
    eps: float = 1e-5,
    impl: str = "auto",
) -> Tensor:
    """Compute LayerNorm(Linear(z)) for the concatenation z of all levels, without forming z (HCL, section 2).

    Linear layers and upsampling commute, so every level is projected on its own small grid: a third of the
    arithmetic of the concatenating form.

    Args:
        sequences: L tensors (B, 1 + h_l * w_l, D), [CLS] and row-major patches, after the backbone's final
            LayerNorm; the finest level first.
        grids: the L pairs (h_l, w_l).
        weight: (E, (L + 1) * D), weight of the Linear over z, ordered as by `aggregate_tokens`. All
            parameters have the sequences' dtype, unless autocast converts them.
        bias: (E,), its bias.
        norm_weight: (E,), weight of the LayerNorm that follows.
        norm_bias: (E,), its bias.
        eps: epsilon of that LayerNorm.
        impl: "auto", "torch" or "triton".

    Returns:
        (B, h_0 * w_0, E).

    Raises:
        ValueError: sequences and grids disagree, a parameter does not have the shape above, or the sequences
            are not floating point of one dtype.
    """
    width = _check_levels(sequences, grids)
    _check_shape("weight", weight, (weight.shape[0], (len(grids) + 1) * width))
    for name, vector in (("bias", bias), ("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        _check_shape(name, vector, (weight.shape[0],))
    chosen = _implementation(impl, *sequences, weight, bias, norm_weight, norm_bias)
    return chosen.fuse_tokens(sequences, grids, weight, bias, norm_weight, norm_bias, eps)


def _implementation(impl: str, *tensors: Tensor) -> ModuleType:
    if choose(impl, *tensors, available=True) == "torch":
        return reference
    # Imported here, so that the package can be imported without Triton.
    from kernels.aggregate import triton

    return triton


def _check_levels(sequences: Sequence[Tensor], grids: Sequence[Grid]) -> int:
    if len(sequences) != len(grids) or not grids:
        raise ValueError(f"expected one grid a level, got {len(sequences)} sequences and {len(grids)} grids")
    if sequences[0].ndim != 3:
        raise ValueError(f"expected sequences of shape (B, 1 + h*w, D), got {tuple(sequences[0].shape)}")
    batch, _, width = sequences[0].shape
    for level, (sequence, (height, columns)) in enumerate(zip(sequences, grids, strict=True)):
        if height < 1 or columns < 1 or height > grids[0][0] or columns > grids[0][1]:
            raise ValueError(f"grids must hold cells and come finest first, got {list(grids)}")
        _check_shape(f"sequences[{level}]", sequence, (batch, 1 + height * columns, width))
        if not sequence.is_floating_point() or sequence.dtype != sequences[0].dtype:
            raise ValueError(
                f"sequences[{level}]: expected floating point of one dtype for all levels, "
                f"got {sequence.dtype}"
            )
    return width


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(tensor.shape)}")
