"""bf16 against fp32 on the same batches: `python -m benchmarks.precision_curves` prints one JSON object.

All variants start from the same weights and see the same views, step by step. Their loss curves, and
overclustering with the trained heads, are compared with fp32:

- plain: the published step in fp32, with every operation written out, on the clusters of fp32;
- bf16: on the clusters of fp32, so that only the steps differ;
- fp8, if a GPU supports it: likewise;
- bf16_throughout: on clusters of its own bank, as in a run in bf16;
- fp32_other_start: fp32 on clusters from another start of k-means, which shows the effect of chance alone.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import published
from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from benchmarks.steps import adamw
from hcl.clustering.mogo import Centroids, ClusteringConfig, MoGoClustering
from hcl.clustering.sampling import BankRows
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.scenes import write_scenes
from hcl.distributed import World
from hcl.engine.bank_pass import BankPass
from hcl.engine.batches import Batches
from hcl.engine.config import TrainConfig
from hcl.engine.learner import Learner
from hcl.engine.step import LossConfig, Losses, Views
from hcl.evaluation import overclustering
from hcl.models.backbones import BACKBONES, BackboneConfig
from hcl.models.hcl import HCL
from hcl.models.recorded_backbone import BackboneOverride
from hcl.precision import Precision, runs_fp8
from pipelines.draws import ViewsConfig
from pipelines.training_views import TrainingViews

ALLOWED = 0.02
"""Largest relative deviation allowed between a loss in bf16 and in fp32."""
SEED, OTHER_SEED = 7, 8


class Data(NamedTuple):
    """The images to train on and those to score."""

    training: DataConfig
    scored: DataConfig


class Variant(NamedTuple):
    """A run: its number format and its curve (steps, 4), with a column per part of `Losses`."""

    precision: Precision
    curve: Tensor


class Bench:
    """Runs the variants, and keeps the head of each in a folder for scoring."""

    def __init__(self, data: Data, folder: Path, options: argparse.Namespace) -> None:
        self.data, self.folder, self.options = data, folder, options
        self.world = World.alone(torch.device(options.device))
        self.dataset = open_dataset(data.training)
        self.views = TrainingViews(
            self.dataset,
            ViewsConfig(size=options.size),
            seed=SEED,
            device=self.world.device,
            threads=options.threads,
        )
        self.batches = Batches(len(self.dataset), options.batch_size, 1, SEED, self.world)
        self.parts = self._batches_of_steps()

    def _batches_of_steps(self) -> list[np.ndarray]:
        epochs = -(-self.options.steps // self.batches.steps_per_epoch)
        every = [batch for epoch in range(epochs) for batch in self.batches.training(epoch)]
        return every[: self.options.steps]

    def config(self, precision: Precision) -> TrainConfig:
        """Return the settings of a run."""
        options = self.options
        return TrainConfig(
            data=self.data.training,
            batch_size=options.batch_size,
            seed=SEED,
            device=options.device,
            precision=precision,
            views=ViewsConfig(size=options.size),
            backbone=BackboneConfig(options.backbone, options.weights),
            clustering=ClusteringConfig(
                foreground_clusters=options.clusters, background_clusters=options.clusters, k="auto"
            ),
            loss=LossConfig(momentum=options.momentum),
        )

    def clustered(self, learner: Learner) -> Centroids:
        """Cluster the learner's own bank, made in its own number format."""
        bank_pass = BankPass(learner.config, learner, self.batches, self.views)
        levels = bank_pass.levels(0)
        learner.clustering.refresh(0, (bank_pass.sample(0, *image) for image in levels))
        assert learner.clustering.centroids is not None
        return learner.clustering.centroids

    def clustered_otherwise(self, learner: Learner) -> Centroids:
        """Cluster the same bank from another start of k-means."""
        assert learner.clustering.banks is not None
        foreground, background = (
            BankRows(bank.rows, torch.zeros(bank.total, dtype=torch.int64, device=bank.rows.device))
            for bank in learner.clustering.banks
        )
        clustering = MoGoClustering(learner.config.clustering, seed=OTHER_SEED, world=self.world)
        clustering.refresh(0, [(foreground, background)])
        assert clustering.centroids is not None
        return clustering.centroids

    def train(self, name: str, precision: Precision, centroids: Centroids) -> Variant:
        """Take the steps of this project on given clusters."""
        learner = Learner(self.config(precision), self.world)
        learner.clustering.centroids = centroids
        curve = self._curve(lambda views: learner.training_step([views]).losses)
        self._keep_head(name, learner.model)
        return Variant(precision, curve)

    def train_plainly(self, name: str, centroids: Centroids) -> Variant:
        """Take the published steps in fp32 on given clusters."""
        learner = Learner(self.config("fp32"), self.world)
        model = published.plain(learner.model)
        optimizer, loss = adamw(model, fused=False), learner.config.loss

        def step(views: Views) -> Losses:
            return published.training_step(
                model,
                optimizer,
                views,
                centroids,
                temperature=loss.temperature,
                momentum=loss.momentum,
                keep_mass=learner.config.clustering.keep_mass,
            )

        curve = self._curve(step)
        self._keep_head(name, model)
        return Variant("fp32", curve)

    def _curve(self, step: Callable[[Views], Losses]) -> Tensor:
        stream = self.views.batches(1, self.parts)
        return torch.stack([torch.stack(step((b.views[0], b.views[1]))) for b in stream]).cpu()

    def _keep_head(self, name: str, model: HCL) -> None:
        state = {"momentum_seg_head": model.momentum.state_dict()}
        torch.save({**state, "config": {"head": asdict(model.momentum.config)}}, self.folder / f"{name}.pt")

    def scores(self, name: str, precision: Precision) -> dict[str, Any]:
        """Score overclustering with a variant's head in a number format: per seed, mean and deviation."""
        options = self.options
        settings = overclustering.OverclusteringConfig(
            data=self.data.scored,
            output=str(self.folder / "scores"),
            backbone=BackboneOverride(options.backbone, options.weights),
            checkpoint=str(self.folder / f"{name}.pt"),
            size=options.size,
            batch_size=options.batch_size,
            threads=options.threads,
            device=options.device,
            precision=precision,
            keep_tokens=False,
            clusters=options.scored_clusters,
            restarts=2,
        )
        (result,) = overclustering.run(settings, self.world)["results"]
        return {part: result[part] for part in ("mean", "std", "seeds")}


def run_all(bench: Bench) -> dict[str, Variant]:
    """Run every variant; return them by name, with fp32, the reference, first."""
    fp32, bf16 = Learner(bench.config("fp32"), bench.world), Learner(bench.config("bf16"), bench.world)
    shared, own = bench.clustered(fp32), bench.clustered(bf16)
    other = bench.clustered_otherwise(fp32)
    variants = {
        "fp32": bench.train("fp32", "fp32", shared),
        "plain": bench.train_plainly("plain", shared),
        "bf16": bench.train("bf16", "bf16", shared),
        "bf16_throughout": bench.train("bf16_throughout", "bf16", own),
        "fp32_other_start": bench.train("fp32_other_start", "fp32", other),
    }
    if runs_fp8(bench.world.device):
        variants["fp8"] = bench.train("fp8", "fp8", shared)
    return variants


def deviations(curve: Tensor, reference: Tensor) -> dict[str, dict[str, float]]:
    """Return each loss part's worst and mean relative deviation, and the step of the worst, from 1."""
    relative = ((curve - reference).abs() / reference.abs()).unbind(dim=1)
    return {
        name: {"worst": part.max().item(), "at_step": int(part.argmax()) + 1, "mean": part.mean().item()}
        for name, part in zip(Losses._fields, relative, strict=True)
    }


def compare(bench: Bench) -> dict[str, Any]:
    """Run and score every variant, and compare it with fp32."""
    variants = run_all(bench)
    reference = variants["fp32"].curve
    apart = {name: deviations(variant.curve, reference) for name, variant in variants.items()}
    return {
        "images": {"training": len(bench.dataset), "seen": len(np.unique(np.concatenate(bench.parts)))},
        "allowed": ALLOWED,
        "within": {name: part["total"]["worst"] <= ALLOWED for name, part in apart.items() if name != "fp32"},
        "variants": {
            name: {
                "precision": variant.precision,
                "loss": [round(value, 5) for value in variant.curve[:, 0].tolist()],
                "from_fp32": apart[name],
                "overclustering": bench.scores(name, variant.precision),
            }
            for name, variant in variants.items()
        },
    }


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Data]:
    """Open PASCAL VOC's folder, or generate scenes."""
    if options.root:
        yield Data(DataConfig("voc", options.root, "trainaug"), DataConfig("voc", options.root, "val"))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        write_scenes(root, train=options.images, val=options.images, size=options.size)
        yield Data(*(DataConfig("scenes", str(root), split) for split in ("train", "val")))


def add_images_and_backbone(parser: argparse.ArgumentParser) -> None:
    """Add the options of the images that `opened` opens, and of the backbone."""
    parser.add_argument("--root", help="PASCAL VOC's folder (default: generated scenes)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="tiny")
    parser.add_argument("--weights", help="weights of the backbone")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog="python -m benchmarks.precision_curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_images_and_backbone(parser)
    parser.add_argument("--momentum", type=float, default=0.99, help="momentum of the EMA (default 0.99)")
    add_integers(
        parser,
        ("steps", 50, "optimiser steps"),
        ("images", 200, "generated scenes per split"),
        ("batch_size", 4, "images in a step"),
        ("size", 224, "pixels a side of a view, and of a scored image"),
        ("clusters", 500, "clusters of each bank"),
        ("scored_clusters", 100, "clusters of overclustering"),
        ("threads", torch.get_num_threads(), "threads of torch and of DALI"),
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    described = machine("torch", device=options.device)
    with opened(options) as data, tempfile.TemporaryDirectory() as folder:
        compared = compare(Bench(data, Path(folder), options))
    return give({"machine": described, "settings": vars(options), **compared})


if __name__ == "__main__":
    main()
