"""Effect of number formats on the tokens: `python -m benchmarks.number_formats` prints one JSON object.

The frozen backbone and an untrained head see the same images in fp32, in bf16 and with the backbone's linear
layers in FP8; z, the projected tokens, their foreground flags and their nearest clusters are compared with
fp32. A CPU computes FP8 with the rounding of a GPU, but slowly: this says nothing about speed.
"""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from benchmarks.precision_curves import add_images_and_backbone, opened
from hcl.data.dataset import open_dataset
from hcl.evaluation.tokens import untrained_head
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.fp8 import multiply_in_fp8
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.precision import Precision, mixed
from kernels.foreground import foreground_mask
from kernels.kmeans import kmeans, lloyd_step
from pipelines.labelled_images import EvaluationImages

KEEP_MASS = 0.7


class Tokens(NamedTuple):
    """Tokens of all images: z (n, (L + 1) D), projected tokens (n, C), foreground flags (n,)."""

    z: Tensor
    projected: Tensor
    foreground: Tensor


@torch.no_grad()
def tokens(backbone: PMViT, head: SegHead, batches: Sequence[Tensor], precision: Precision) -> Tokens:
    """Compute the tokens of some images in a number format; return them on the CPU in float32."""
    parts = []
    for images in batches:
        with mixed(images.device, precision):
            levels = backbone(images)
            z = backbone.concatenated(levels)
            projected = head(backbone.normalised(levels))
        foreground = foreground_mask(levels.cls_attention.float(), KEEP_MASS)
        parts.append((z.float().flatten(0, 1), projected.float().flatten(0, 1), foreground.flatten()))
    return Tokens(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))


def change(found: Tokens, reference: Tokens, centroids: Tensor) -> dict[str, float]:
    """Return how far tokens are from the reference's."""
    cosine = (found.projected * reference.projected).sum(dim=1)
    nearest, before = (lloyd_step(t.projected, centroids).assignment for t in (found, reference))
    return {
        "z_relative": ((found.z - reference.z).norm() / reference.z.norm()).item(),
        "projected_cosine_mean": cosine.mean().item(),
        "projected_cosine_least": cosine.min().item(),
        "foreground_flags_changed": (found.foreground != reference.foreground).float().mean().item(),
        "nearest_clusters_changed": (nearest != before).float().mean().item(),
    }


def compare(batches: Sequence[Tensor], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Compare every number format with fp32."""
    device = torch.device(options.device)
    backbone = build_backbone(BackboneConfig(options.backbone, options.weights)).to(device)
    head = untrained_head(backbone, SegHeadConfig(), seed=0).to(device).eval()
    reference = tokens(backbone, head, batches, "fp32")
    rows = reference.projected
    start = rows[:: len(rows) // options.clusters][: options.clusters]
    centroids = kmeans(rows, len(start), iterations=20, init=start).centroids
    in_fp8 = deepcopy(backbone)
    multiply_in_fp8(in_fp8)
    found = {
        "bf16": tokens(backbone, head, batches, "bf16"),
        "fp8": tokens(in_fp8, head, batches, "fp8"),
    }
    return {name: change(part, reference, centroids) for name, part in found.items()}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.number_formats", description=__doc__)
    add_images_and_backbone(parser)
    add_integers(
        parser,
        ("images", 32, "images of the data set, or generated scenes"),
        ("batch_size", 8, "images at a time"),
        ("size", 224, "pixels a side of an image"),
        ("clusters", 500, "clusters of the projected tokens"),
        ("threads", torch.get_num_threads(), "threads of torch and of DALI"),
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    described = machine("torch", device=options.device)
    with opened(options) as data:
        images = EvaluationImages(
            open_dataset(data.scored),
            size=options.size,
            batch_size=options.batch_size,
            device=options.device,
            threads=options.threads,
            indices=np.arange(options.images),
        )
        changed = compare([batch.images for batch in images], options)
    return give({"machine": described, "settings": vars(options), "changed_from_fp32": changed})


if __name__ == "__main__":
    main()
