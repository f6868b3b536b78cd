"""The published algorithm, written plainly: the baseline of every measurement.

The training step as in the published program, on the weights of this project's modules: the backbone runs on
every level separately, attention matrices and z are formed in full, nearest centroids are searched on the
host, and foreground components are labelled image by image. The steps of overclustering: all tokens are
standardised at once, PCA and k-means are faiss's, and a pair of masks is compared for every cluster and
class. Nothing here is meant to be fast.
"""

from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from hcl.engine.step import Losses
from hcl.models.hcl import HCL
from hcl.models.linear import Linear
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHead
from hcl.models.vit import Block

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


def plain(model: HCL) -> HCL:
    """Copy the model with torch's own linear layers, as in the published program."""
    copy = deepcopy(model)
    for module in copy.modules():
        if isinstance(module, Linear):
            module.__class__ = PlainLinear  # type: ignore[assignment]
    return copy


class PlainLinear(nn.Linear):
    """torch's own linear layer, with the interface of this project's."""

    def activated(self, input: Tensor) -> Tensor:
        """Map tokens (..., in_features) to tokens (..., out_features), with GELU."""
        return F.gelu(self(input))


def attend(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run one transformer block with its attention matrix written out.

    Returns:
        Tokens (B, N, D) and attention (B, heads, N, N).
    """
    heads = block.attn.heads
    qkv = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    x = x + block.ls1(block.attn.proj((attention @ v).transpose(1, 2).flatten(2)))
    return x + block.ls2(block.mlp(block.norm2(x))), attention


def run_level(backbone: PMViT, images: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Run one level through the backbone; return tokens after the final norm and the last attention."""
    vit = backbone.vit
    grid = (images.shape[2] // patch_size, images.shape[3] // patch_size)
    patches = F.conv2d(images, backbone.kernel(patch_size), vit.patch_embed.proj.bias, stride=patch_size)
    x = vit.sequence(patches.flatten(2).transpose(1, 2), vit.patch_positions(grid))
    for block in vit.blocks:
        assert isinstance(block, Block)
        x, attention = attend(block, x)
    return vit.norm(x), attention


@torch.no_grad()
def concatenated_tokens(backbone: PMViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return z (B, N, (L + 1) D) and the CLS row of level 0's attention (B, heads, h, w)."""
    first = 1 + backbone.vit.config.registers
    grids = [(images.shape[2] // size, images.shape[3] // size) for size in backbone.patch_sizes]
    levels = [run_level(backbone, images, size) for size in backbone.patch_sizes]
    maps = [
        F.interpolate(
            tokens[:, first:].transpose(1, 2).unflatten(2, grid), size=grids[0], mode="bilinear"
        ).flatten(2)
        for (tokens, _), grid in zip(levels, grids, strict=True)
    ]
    cls = levels[0][0][:, :1].transpose(1, 2).expand(-1, -1, maps[0].shape[2])
    attention = levels[0][1][:, :, 0, first:].unflatten(2, grids[0])
    return torch.cat([*maps, cls], dim=1).transpose(1, 2), attention


def foreground_map(cls_attention: np.ndarray, keep_mass: float) -> np.ndarray:
    """Compute the foreground map (h, w) of one image's attention (heads, h, w) (HCL, section 3)."""
    radius, sigma = 3, 0.6
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-(offsets**2) / (2 * sigma**2))
    window /= window.sum()
    blurred = cls_attention.mean(axis=0)
    for axis in (0, 1):
        blurred = ndimage.convolve1d(blurred, window, axis=axis, mode="mirror")
    order = np.argsort(blurred, axis=None)
    mass = np.cumsum(blurred.flat[order]) / blurred.sum()
    foreground = np.zeros(blurred.size, dtype=bool)
    foreground[order] = mass > 1 - keep_mass
    components, _ = ndimage.label(foreground.reshape(blurred.shape), structure=EIGHT_NEIGHBOURS)
    sizes = np.bincount(components.ravel())
    return (components > 0) & (sizes[components] > 2)


def foreground_maps(cls_attention: Tensor, keep_mass: float) -> Tensor:
    """Compute foreground flags (B, N), one image after the other on the host."""
    maps = [foreground_map(image, keep_mass) for image in cls_attention.float().cpu().numpy()]
    return torch.from_numpy(np.stack(maps)).flatten(1).to(cls_attention.device)


@torch.no_grad()
def momentum_tokens(model: HCL, images: Tensor, keep_mass: float) -> tuple[Tensor, Tensor]:
    """Compute momentum tokens (B, N, C) and foreground flags (B, N) of one view."""
    z, attention = concatenated_tokens(model.backbone, images)
    return project(model.momentum, z), foreground_maps(attention, keep_mass)


def component_tokens(head: SegHead, z: Tensor) -> Tensor:
    """Compute component tokens (B, N, E) of concatenated levels, with the head's attention written out."""
    fused = head.norm(head.multi_scale_fuser(z))
    mixed = attend(head.seg_head, fused)[0] if isinstance(head.seg_head, Block) else head.seg_head(fused)
    return head.norm_2(mixed)


def project(head: SegHead, z: Tensor) -> Tensor:
    """Compute projected tokens (B, N, C) of concatenated levels."""
    return head.project(component_tokens(head, z))


def nearest_on_host(tokens: Tensor, centroids: Tensor) -> Tensor:
    """Find each token's nearest centroid with faiss on the host; return the indices on the tokens' device."""
    index = _faiss().IndexFlatL2(centroids.shape[1])
    index.add(centroids.cpu().numpy())
    return torch.from_numpy(index.search(tokens.cpu().numpy(), 1)[1][:, 0]).to(tokens.device)


def contrast(q: Tensor, k: Tensor, centroids: Tensor, temperature: float) -> Tensor:
    """Compute the mean loss of the tokens of one bank."""
    logits = q @ F.normalize(centroids, dim=1).T / temperature
    return F.cross_entropy(logits, nearest_on_host(k, centroids))


def training_step(
    model: HCL,
    optimizer: torch.optim.Optimizer,
    views: tuple[Tensor, Tensor],
    centroids: Sequence[Tensor],
    *,
    temperature: float = 0.07,
    momentum: float = 0.996,
    keep_mass: float = 0.7,
) -> Losses:
    """Take one optimiser step on two views (B, 3, H, W); centroids raw, foreground then background."""
    model.update_momentum(momentum)
    z, _ = concatenated_tokens(model.backbone, views[0])
    q_BNC = project(model.online.seg_head, z)
    predicted_BNC = model.online.predictor(q_BNC)
    k_BNC, foreground_BN = momentum_tokens(model, views[1], keep_mass)
    parts = [
        contrast(q_BNC[member], k_BNC[member], side, temperature)
        for member, side in zip((foreground_BN, ~foreground_BN), centroids, strict=True)
    ]
    prediction = F.mse_loss(predicted_BNC, k_BNC)
    loss = sum(parts) / 2 + prediction / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return Losses(loss.detach(), parts[0].detach(), parts[1].detach(), prediction.detach())


class ClusterScores(NamedTuple):
    """True positives, false positives and false negatives, (classes,) each, and mean IoU of all classes."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    miou: float


def reduced_tokens(tokens: np.ndarray, dimensions: int) -> np.ndarray:
    """Standardise float32 rows (n, D) as a whole and reduce them to (n, dimensions) by faiss's PCA."""
    deviation = tokens.std(axis=0)
    standardised = (tokens - tokens.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    pca = _faiss().PCAMatrix(standardised.shape[1], dimensions)
    pca.train(standardised)
    return pca.apply_py(standardised)


def token_clusters(
    points: np.ndarray,
    clusters: int,
    *,
    seed: int,
    iterations: int = 100,
    restarts: int = 5,
    rows_per_cluster: int | None = None,
) -> tuple[np.ndarray, float]:
    """Cluster float32 rows by faiss's k-means; return clusters (n,) and inertia.

    Args:
        points: (n, d).
        clusters: K.
        seed: seed of faiss's draws.
        iterations: number of iterations; faiss does all of them.
        restarts: number of runs; the best run counts.
        rows_per_cluster: at most K times this many rows are drawn and clustered; None: all rows.
    """
    found = _faiss().Kmeans(
        points.shape[1],
        clusters,
        niter=iterations,
        nredo=restarts,
        seed=seed,
        max_points_per_centroid=rows_per_cluster or len(points),
    )
    found.train(points)
    squared, assignment = found.index.search(points, 1)
    return assignment[:, 0], float(squared.sum(dtype=np.float64))


def cluster_scores(predictions: np.ndarray, labels: np.ndarray, clusters: int, classes: int) -> ClusterScores:
    """Give every cluster its most precise class, and score; with masks for every cluster and class.

    Args:
        predictions: cluster ids, any shape.
        labels: class ids of the same shape; 255 does not count.
        clusters, classes: how many of each.
    """
    counted = labels != 255
    predictions, labels = predictions[counted], labels[counted]
    precision = np.zeros((clusters, classes))
    for cluster in range(clusters):
        for kind in range(classes):
            predicted, labelled = predictions == cluster, labels == kind
            hits = np.sum(predicted & labelled)
            precision[cluster, kind] = hits / max(hits + np.sum(predicted & ~labelled), 1)
    merged = precision.argmax(axis=1)[predictions]
    pairs = [(merged == kind, labels == kind) for kind in range(classes)]
    tp = np.array([np.sum(predicted & labelled) for predicted, labelled in pairs])
    fp = np.array([np.sum(predicted & ~labelled) for predicted, labelled in pairs])
    fn = np.array([np.sum(~predicted & labelled) for predicted, labelled in pairs])
    return ClusterScores(tp, fp, fn, float(np.mean(tp / np.maximum(tp + fp + fn, 1))))


def _faiss() -> Any:
    """Import faiss on first use: this project's own code can be measured without it."""
    return import_module("faiss")
