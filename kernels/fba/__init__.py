"""Foreground-background-aware contrastive loss (HCL, section 5)."""

import torch
from torch import Tensor

from kernels.dispatch import choose
from kernels.fba import reference
from kernels.fba.reference import FBAOutput
from kernels.precision import compute_dtype

__all__ = ["FBAOutput", "fba_contrastive"]


def fba_contrastive(
    q: Tensor,
    k: Tensor,
    foreground: Tensor,
    centroids_fg: Tensor,
    centroids_bg: Tensor,
    temperature: float,
    *,
    impl: str = "auto",
) -> FBAOutput:
    """Contrast every online token with the centroid nearest to its momentum token (HCL, section 5).

    A token is compared with the centroids of its own bank only. The nearest centroid is searched among the
    raw centroids; the logits use their L2-normalised form. Sums are at least in float32, with or without
    autocast; if all inputs are bfloat16, "triton" rounds the softmax's weights in the gradient to bfloat16.
    Only q gets a gradient, and only of first order. There is no host synchronisation, and no shape depends on
    the data.

    Args:
        q: (M, C) L2-normalised online tokens.
        k: (M, C) L2-normalised momentum tokens.
        foreground: (M,) bool, which bank each token belongs to.
        centroids_fg: (K_fg, C) raw centroids of the foreground bank.
        centroids_bg: (K_bg, C) raw centroids of the background bank.
        temperature: of the softmax, a positive number; not a tensor, which would get no gradient.
        impl: "auto", "torch" or "triton".

    Returns:
        loss_fg, loss_bg: 0-d, the mean loss of this call's tokens of each bank; 0 with zero gradient if there
        are none. count_fg, count_bg: 0-d int64, the numbers of these tokens (to weight the means over ranks).
        assignment: (M,) int64, the nearest centroid as an index into the token's own bank.

    Raises:
        ValueError: the shapes disagree, tokens or centroids are not floating point, `foreground` is not bool,
            a bank is empty, or the temperature is not a positive number.
    """
    _check(q, k, foreground, centroids_fg, centroids_bg, temperature)
    in_float32 = compute_dtype(q, k, centroids_fg, centroids_bg) == torch.float32
    if choose(impl, q, k, foreground, centroids_fg, centroids_bg, available=in_float32) == "triton":
        from kernels.fba import triton

        return FBAOutput(*triton.fba_contrastive(q, k, foreground, centroids_fg, centroids_bg, temperature))
    return reference.fba_contrastive(q, k, foreground, centroids_fg, centroids_bg, temperature)


def _check(
    q: Tensor, k: Tensor, foreground: Tensor, centroids_fg: Tensor, centroids_bg: Tensor, temperature: float
) -> None:
    if q.ndim != 2 or q.shape != k.shape:
        raise ValueError(f"expected q and k of one shape (M, C), got {tuple(q.shape)} and {tuple(k.shape)}")
    if foreground.shape != q.shape[:1] or foreground.dtype != torch.bool:
        raise ValueError(
            f"foreground: expected bool of shape {tuple(q.shape[:1])}, "
            f"got {foreground.dtype} of shape {tuple(foreground.shape)}"
        )
    for name, bank in (("centroids_fg", centroids_fg), ("centroids_bg", centroids_bg)):
        if bank.ndim != 2 or bank.shape[1] != q.shape[1] or bank.shape[0] < 1:
            raise ValueError(f"{name}: expected shape (K >= 1, {q.shape[1]}), got {tuple(bank.shape)}")
    for name, rows in (("q", q), ("k", k), ("centroids_fg", centroids_fg), ("centroids_bg", centroids_bg)):
        if not rows.is_floating_point():
            raise ValueError(f"{name}: expected floating point, got {rows.dtype}")
    if isinstance(temperature, Tensor) or not temperature > 0:
        raise ValueError(f"temperature must be a positive number, got {temperature!r}")
