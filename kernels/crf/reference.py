"""The exact dense CRF in plain torch: over all pairs of pixels, so for small images only."""

import torch
from torch import Tensor

from kernels.crf.energy import Pairwise, unary_energy
from kernels.precision import compute_dtype, without_autocast


def dense_crf(probabilities: Tensor, images: Tensor, iterations: int, pairwise: Pairwise) -> Tensor:
    """Run mean field with both kernels as matrices of pixels x pixels, one image at a time."""
    unaries = unary_energy(probabilities.to(compute_dtype(probabilities)))
    marginals = torch.empty_like(unaries, memory_format=torch.contiguous_format)
    with without_autocast(probabilities):
        for marginal, unary, image in zip(marginals, unaries, images, strict=True):
            kernel = _kernel(image.to(unary.dtype), pairwise)
            marginal.copy_(_mean_field(unary.flatten(1), kernel, iterations).view(unary.shape))
    return marginals.float()


def _mean_field(unary: Tensor, kernel: Tensor, iterations: int) -> Tensor:
    """Run mean field for the Potts model. unary (C, N), kernel (N, N)."""
    marginals = (-unary).softmax(dim=0)
    for _ in range(iterations):
        marginals = (marginals @ kernel - unary).softmax(dim=0)
    return marginals


def _kernel(image: Tensor, pairwise: Pairwise) -> Tensor:
    """Compute both kernels of an image (3, H, W), weighted and added. (N, N)."""
    rows, columns = (torch.arange(size, device=image.device) for size in image.shape[1:])
    position = torch.cartesian_prod(rows, columns).to(image.dtype)
    colour = image.flatten(1).T / pairwise.bilateral_srgb
    bilateral = torch.cat([position / pairwise.bilateral_sxy, colour], dim=1)
    return pairwise.gaussian_compat * _symmetric(
        position / pairwise.gaussian_sxy
    ) + pairwise.bilateral_compat * _symmetric(bilateral)


def _symmetric(features: Tensor) -> Tensor:
    """Compute D^-1/2 K D^-1/2 with the Gaussian kernel K between rows and its row sums D. (N, N)."""
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    weight = torch.exp(-0.5 * distance.square())
    scale = weight.sum(dim=1).rsqrt()
    return scale[:, None] * weight * scale
