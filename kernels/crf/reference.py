"""The exact dense CRF in plain torch: every pixel with every pixel, so for small images only."""

import torch
from torch import Tensor

from kernels.crf.energy import Pairwise, unary_energy
from kernels.precision import compute_dtype, without_autocast


def dense_crf(probabilities: Tensor, images: Tensor, iterations: int, pairwise: Pairwise) -> Tensor:
    """Mean field with both kernels as matrices of pixels x pixels, one image at a time."""
    unaries = unary_energy(probabilities.to(compute_dtype(probabilities)))
    marginals = torch.empty_like(unaries, memory_format=torch.contiguous_format)
    with without_autocast(probabilities):
        for marginal, unary, image in zip(marginals, unaries, images, strict=True):
            kernel = _kernel(image.to(unary.dtype), pairwise)
            marginal.copy_(_mean_field(unary.flatten(1), kernel, iterations).view(unary.shape))
    return marginals.float()


def _mean_field(unary: Tensor, kernel: Tensor, iterations: int) -> Tensor:
    """Potts model: a pixel is drawn to what the pixels near it are. unary (C, N), kernel (N, N)."""
    marginals = (-unary).softmax(dim=0)
    for _ in range(iterations):
        marginals = (marginals @ kernel - unary).softmax(dim=0)
    return marginals


def _kernel(image: Tensor, pairwise: Pairwise) -> Tensor:
    """Both kernels of an image (3, H, W), weighted and added. (N, N)."""
    rows, columns = (torch.arange(size, device=image.device) for size in image.shape[1:])
    position = torch.cartesian_prod(rows, columns).to(image.dtype)
    colour = image.flatten(1).T / pairwise.bilateral_srgb
    bilateral = torch.cat([position / pairwise.bilateral_sxy, colour], dim=1)
    return pairwise.gaussian_compat * _symmetric(
        position / pairwise.gaussian_sxy
    ) + pairwise.bilateral_compat * _symmetric(bilateral)


def _symmetric(features: Tensor) -> Tensor:
    """Gaussian kernel K between rows, D^-1/2 K D^-1/2 with the row sums D, themselves included. (N, N)."""
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    weight = torch.exp(-0.5 * distance.square())
    scale = weight.sum(dim=1).rsqrt()
    return scale[:, None] * weight * scale
