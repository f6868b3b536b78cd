"""Dense conditional random field (HCL, section 7; Krähenbühl and Koltun, NeurIPS 2011)."""

import math

import torch
from torch import Tensor

from kernels.crf import pydensecrf, reference
from kernels.crf.energy import Pairwise
from kernels.crf.gaussian import MAX_SIDE
from kernels.crf.pending import Pending, Ready
from kernels.crf.tiles import BLOCK
from kernels.dispatch import choose

__all__ = ["Pending", "Ready", "dense_crf", "implementation", "submit_dense_crf"]

MAX_TORCH_PIXELS = 10_000
MAX_TRITON_MESSAGES = 2**31 - 1


def dense_crf(
    probabilities: Tensor,
    images: Tensor,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 1.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 67.0,
    bilateral_srgb: float = 3.0,
    bilateral_compat: float = 4.0,
    tolerance: float = 1e-3,
    workers: int | None = None,
    impl: str = "auto",
) -> Tensor:
    """Make class probabilities follow the edges of the image (HCL, section 7).

    Mean-field inference in a fully connected CRF with Potts compatibility. The unary energy is -log p, with p
    at least 1e-5; the pairwise energy has two kernels: a Gaussian kernel of positions and a bilateral kernel
    of positions and colours, both symmetrically normalised by their row sums. No gradient.

    "torch" and "triton" compute the kernels exactly; "pydensecrf" approximates them, and published numbers
    come from it. With "triton" nothing leaves the device, and the same input gives the same bits.

    Args:
        probabilities: (B, C, H, W) floating point, a softmax over the classes.
        images: (B, 3, H, W) uint8, red first, on the same device.
        iterations: number of mean-field updates; 0 returns the probabilities.
        gaussian_sxy: bandwidth of the Gaussian kernel, in pixels.
        gaussian_compat: weight of the Gaussian kernel.
        bilateral_sxy: bandwidth of the bilateral kernel in position, in pixels.
        bilateral_srgb: bandwidth of the bilateral kernel in colour, in steps of 1 / 255.
        bilateral_compat: weight of the bilateral kernel.
        tolerance: for "triton" only: a pair of pixel tiles is skipped if no weight between them reaches this
            value; weights are at most 1. 0 skips none.
        workers: for "pydensecrf" only: the number of worker processes, by default one for every processor
            that this process may use; 1 computes in this process. The workers stay for the next call. A
            script that is run directly must call this below `if __name__ == "__main__":`, because workers
            import the script.
        impl: "auto", "torch" (up to 10,000 pixels), "triton" (memory grows with the square of the number of
            pixels: a GiB for a million) or "pydensecrf" (copies to the host). "auto" is Triton on CUDA
            tensors and pydensecrf elsewhere.

    Returns:
        The marginals, (B, C, H, W) float32.

    Raises:
        ValueError: shapes, dtypes or devices disagree, a parameter is out of range, or the image is too large
            for "torch", or for "triton" in the device's memory.
        ModuleNotFoundError: the implementation's package is not installed.
        RuntimeError: a worker process died.
    """
    # A single image that is waited for gains nothing from a worker process.
    alone = images.shape[:1] == (1,) and (workers is None or workers > 1)
    return submit_dense_crf(
        probabilities,
        images,
        iterations=iterations,
        gaussian_sxy=gaussian_sxy,
        gaussian_compat=gaussian_compat,
        bilateral_sxy=bilateral_sxy,
        bilateral_srgb=bilateral_srgb,
        bilateral_compat=bilateral_compat,
        tolerance=tolerance,
        workers=1 if alone else workers,
        impl=impl,
    ).result()


def submit_dense_crf(
    probabilities: Tensor,
    images: Tensor,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 1.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 67.0,
    bilateral_srgb: float = 3.0,
    bilateral_compat: float = 4.0,
    tolerance: float = 1e-3,
    workers: int | None = None,
    impl: str = "auto",
) -> Pending:
    """Start a `dense_crf` whose marginals are collected later; arguments and errors are the same.

    With "pydensecrf" and more than one worker this returns at once, so that the caller can prepare the next
    batch. Every submitted batch takes space for its marginals in an anonymous temporary file: submit a few
    batches, then one more for each that was collected or cancelled. Otherwise everything is computed before
    this returns.

    Returns:
        A handle whose `result()` returns the marginals, (B, C, H, W) float32, or raises if a worker died.
    """
    pairwise = Pairwise(gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    _check_inputs(probabilities, images)
    _check_parameters(iterations, pairwise, tolerance, workers)
    chosen = implementation(impl, probabilities)
    probabilities = probabilities.detach()
    if len(images) == 0:
        return Ready(probabilities.new_empty(probabilities.shape, dtype=torch.float32))
    if chosen == "torch":
        _check_size(images)
        return Ready(reference.dense_crf(probabilities, images, iterations, pairwise))
    if chosen == "pydensecrf":
        return pydensecrf.submit(probabilities, images, iterations, pairwise, workers)
    from kernels.crf import triton

    _check_messages(probabilities)
    return Ready(triton.dense_crf(probabilities, images, iterations, pairwise, tolerance))


def implementation(impl: str, tensor: Tensor) -> str:
    """Choose "torch", "triton" or "pydensecrf" for a tensor's device; raises as `dense_crf`."""
    return choose(impl, tensor, available=True, elsewhere="pydensecrf")


def _check_inputs(probabilities: Tensor, images: Tensor) -> None:
    shape = tuple(probabilities.shape)
    if probabilities.ndim != 4 or 0 in shape[1:] or not probabilities.is_floating_point():
        raise ValueError(
            f"probabilities: expected floating-point (B, C, H, W), got {probabilities.dtype} of shape {shape}"
        )
    expected = (shape[0], 3, *shape[2:])
    if images.shape != expected or images.dtype != torch.uint8:
        raise ValueError(
            f"images: expected uint8 of shape {expected}, got {images.dtype} of shape {tuple(images.shape)}"
        )
    if images.device != probabilities.device:
        raise ValueError(
            f"images are on {images.device}, probabilities on {probabilities.device}; move one of them"
        )
    if max(shape[2:]) >= MAX_SIDE:
        raise ValueError(f"images: sides must be below {MAX_SIDE} pixels, got {shape[2]}x{shape[3]}")


def _check_parameters(iterations: int, pairwise: Pairwise, tolerance: float, workers: int | None) -> None:
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, got {iterations}")
    for name, value in pairwise._asdict().items():
        if not math.isfinite(value) or value < 0 or (value == 0 and not name.endswith("compat")):
            bound = "at least 0" if name.endswith("compat") else "positive"
            raise ValueError(f"{name} must be finite and {bound}, got {value}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must lie in [0, 1), got {tolerance}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1 or None, got {workers}")


def _check_size(images: Tensor) -> None:
    height, width = images.shape[2:]
    if height * width > MAX_TORCH_PIXELS:
        raise ValueError(
            f"impl='torch' compares every pixel with every pixel and takes up to {MAX_TORCH_PIXELS} of them, "
            f"got {height}x{width}; use 'pydensecrf', or 'triton' on CUDA tensors"
        )


def _check_messages(probabilities: Tensor) -> None:
    classes, height, width = probabilities.shape[1:]
    if classes * (height * width + BLOCK) > MAX_TRITON_MESSAGES:
        raise ValueError(
            f"impl='triton' counts classes times pixels in 32 bits, got {classes} classes of "
            f"{height}x{width}; use smaller images"
        )
