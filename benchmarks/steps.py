"""The training steps that benchmarks time: the published step, and this project's with its parts.

The backbone has random weights and the views are noise: neither affects the cost of a step.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks import published
from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.distributed import World
from hcl.engine.compilation import Compile, compile_model
from hcl.engine.replay import replay
from hcl.engine.replayed_step import ReplayedStep
from hcl.engine.step import LossConfig, TrainingStep, Views
from hcl.engine.targets import level_targets
from hcl.models.backbones import BACKBONES
from hcl.models.hcl import HCL
from hcl.models.number_format import prepare
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHeadConfig
from hcl.models.vit import VisionTransformer, initialise
from hcl.precision import Precision, mixed, product_dtype
from kernels.fba import fba_contrastive

KEEP_MASS = 0.7
Run = Callable[[], object]


class Bench(NamedTuple):
    """The common start of all variants."""

    model: HCL
    views: Views
    centroids: Centroids
    world: World


class Parts(NamedTuple):
    """Calls that do a step's work part by part."""

    backbone: Run
    heads: Run
    loss: Run
    optimiser: Run


def build(options: argparse.Namespace) -> Bench:
    """Build a model with random weights, two views of noise and random centroids."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    backbone = BACKBONES[options.backbone]
    vit = VisionTransformer(backbone.vit)
    initialise(vit)
    model = HCL(PMViT(vit, backbone.patch_sizes), SegHeadConfig()).to(device)
    first, second = torch.randn(2, options.batch_size, 3, options.size, options.size, device=device)
    channels = model.momentum.config.projection_dim
    foreground, background = torch.randn(2, options.clusters, channels, device=device)
    return Bench(model, (first, second), Centroids(foreground, background), World.alone(device))


def adamw(model: HCL, **how: Any) -> torch.optim.Optimizer:
    """Make the optimiser of the online branch, with the published settings."""
    return torch.optim.AdamW(model.online.parameters(), lr=1e-4, weight_decay=0.04, **how)


def published_step(bench: Bench) -> Run:
    """Return the published step on a model of its own."""
    model = published.plain(bench.model)
    optimizer = adamw(model)
    return lambda: published.training_step(model, optimizer, bench.views, bench.centroids)


def own_step(bench: Bench, precision: Precision, *, compiled: Compile) -> tuple[Run, Callable[[], Parts]]:
    """Return this project's step on a model of its own, and a function that splits it into parts."""
    model = deepcopy(bench.model)
    model.backbone = prepare(model.backbone, precision, bench.world.device)
    compile_model(model, compiled)
    replay(model.backbone)
    optimizer = adamw(model, fused=True, capturable=bench.world.device.type == "cuda")
    clustering = MoGoClustering(ClusteringConfig(), seed=0, world=bench.world)
    clustering.centroids = bench.centroids
    step = TrainingStep(model, optimizer, clustering, LossConfig(), world=bench.world, precision=precision)
    replayed = ReplayedStep(step)
    return lambda: replayed([bench.views]), partial(parts_of, bench, model, step, precision)


def parts_of(bench: Bench, model: HCL, step: TrainingStep, precision: Precision) -> Parts:
    """Return the parts of a step, each on the outputs of the one before."""
    device = bench.world.device

    @torch.no_grad()
    def backbone() -> Any:
        with mixed(device, precision):
            return model.backbone.pair(bench.views)

    online, momentum = backbone()

    def heads() -> Any:
        model.online.zero_grad(set_to_none=True)
        with mixed(device, precision):
            targets = level_targets(model, momentum, KEEP_MASS)
            q, predicted = model.online(online)
            dtype = product_dtype(q)
        (q.float().sum() + predicted.float().sum()).backward()
        return targets, q.detach().float().flatten(0, 1), dtype

    targets, q, dtype = heads()

    def loss() -> None:
        leaf = q.clone().requires_grad_()
        k, foreground = targets.tokens.flatten(0, 1).float(), targets.foreground.flatten()
        fg, bg = (side.to(dtype) for side in bench.centroids)
        fba = fba_contrastive(leaf.to(dtype), k.to(dtype), foreground, fg, bg, 0.07)
        (fba.loss_fg + fba.loss_bg + (leaf - k).square().mean()).backward()

    def optimiser() -> None:
        model.update_momentum(0.996, hold=step.halted)
        step._update(torch.zeros(4, device=device))

    return Parts(backbone, heads, loss, optimiser)
