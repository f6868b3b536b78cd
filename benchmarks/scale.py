"""Predicted cost of more images and more GPUs: `python -m benchmarks.scale` prints one JSON object.

Unit costs are measured on this device. Two small runs of the whole program are predicted from them, run, and
compared; then a table is computed. Only the values under "costs" and those called "measured" under "checks"
are measured, except for the rate of the links between ranks and a device's memory, which the command line
gives.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import pipeline, steps, train_step
from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from benchmarks.scale_model import MODES, Costs, Prediction, Shape, bank_rows, first_stop, predict
from benchmarks.training_run import write_weights
from hcl.clustering.mogo import SIDES, ClusteringConfig
from hcl.data.dataset import DataConfig
from hcl.data.scenes import write_scenes
from hcl.distributed import World
from hcl.engine.checkpoint import load_checkpoint
from hcl.engine.config import TrainConfig
from hcl.engine.log_reader import read_records
from hcl.engine.targets import level_targets
from hcl.engine.trainer import Trainer
from hcl.memory import GIB
from hcl.models.backbones import BACKBONES, BackboneConfig
from hcl.precision import mixed
from kernels.kmeans import kmeans
from pipelines import dali
from pipelines.draws import ViewsConfig

DATA_SETS = {"PASCAL VOC": 10_582, "COCO": 118_287, "ImageNet": 1_281_167, "one billion": 10**9}
RANKS = (1, 8, 64, 1024)
ITERATIONS = 20


def shape_of(bench: steps.Bench, options: argparse.Namespace) -> Shape:
    """Collect the sizes that the arithmetic needs."""
    backbone, head = bench.model.backbone, bench.model.momentum
    grids = [(options.size // patch) ** 2 for patch in backbone.patch_sizes]
    counts = [sum(p.numel() for p in part.parameters()) for part in (backbone, bench.model.online, head)]
    return Shape(
        tokens=sum(1 + patches for patches in grids),
        cells=grids[0],
        width=backbone.embed_dim,
        channels=head.config.projection_dim,
        attention_heads=backbone.vit.config.heads,
        level_bytes=2 if options.precision == "bf16" else 4,
        backbone_parameters=counts[0],
        head_parameters=counts[1],
        momentum_parameters=counts[2],
        batch_size=options.batch_size,
        clusters=2 * options.clusters,
        iterations=ITERATIONS,
    )


def measured_costs(bench: steps.Bench, shape: Shape, options: argparse.Namespace) -> Costs:
    """Measure the unit costs of this device at these settings."""
    device, images = bench.world.device, options.batch_size
    step, _ = steps.own_step(bench, options.precision, compiled=False)
    backbone = bench.model.backbone

    @torch.no_grad()
    def view() -> Any:
        with mixed(device, options.precision):
            levels = backbone.normalised(backbone(bench.views[1]))
            return levels, level_targets(bench.model, levels, steps.KEEP_MASS)

    levels, targets = view()
    rows = targets.tokens.flatten(0, 1).float()
    clusters = min(options.clusters, len(rows))

    def head() -> None:
        with mixed(device, options.precision):
            level_targets(bench.model, levels, steps.KEEP_MASS)

    def cluster() -> None:
        kmeans(rows, clusters, iterations=ITERATIONS, init=rows[:clusters])

    runs = {"step": step, "head": head, "view": view, "kmeans": cluster}
    times = train_step.take_turns(runs, options.rounds, device)
    seconds = {name: float(np.median(values)) for name, values in times.items()}
    # A first step also allocates gradients and AdamW's averages, which are counted with the weights.
    states = 3 * 4 * shape.head_parameters
    peak = train_step.peak_mib(options, options.precision) or math.nan
    return Costs(
        step=seconds["step"] / images,
        head=seconds["head"] / images,
        view=seconds["view"] / images,
        score=seconds["kmeans"] / (len(rows) * clusters * ITERATIONS),
        input=1 / pipeline.dali_rate(options),
        input_overlaps=device.type == "cuda",
        activations=max(peak * 2**20 - states, 0) / images,
        link=options.link * 1e9,
        memory=options.memory * GIB,
    )


def check(shape: Shape, costs: Costs, images: int, options: argparse.Namespace) -> dict[str, Any]:
    """Predict the second epoch of a run on generated scenes, and run it."""
    with tempfile.TemporaryDirectory() as folder:
        root, output, weights = (Path(folder) / name for name in ("scenes", "run", "weights.pth"))
        write_weights(weights, options.backbone)
        write_scenes(root, train=images, val=1, size=2 * options.size)
        config = TrainConfig(
            data=DataConfig("scenes", str(root), "train"),
            output=str(output),
            epochs=2,
            batch_size=options.batch_size,
            log_every=1,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            views=ViewsConfig(size=options.size),
            backbone=BackboneConfig(options.backbone, str(weights)),
            clustering=ClusteringConfig(
                foreground_clusters=options.clusters,
                background_clusters=options.clusters,
                iterations=ITERATIONS,
                k="auto",
                reuse="always",
            ),
        )
        Trainer(config, World.alone(torch.device(options.device))).run()
        records = read_records(output / "log.jsonl")
        state = load_checkpoint(output / "checkpoint.pt")
    second = [record for record in records if record.get("epoch") == 1]
    training = sum(options.batch_size / r["images_per_second"] for r in second if r["kind"] == "step")
    bank = sum(record["seconds"] for record in second if record["kind"] == "clustering")
    prediction = predict(shape, costs, images, 1, "kept")
    rows = sum(state["banks"][side][0] for side in SIDES)
    return {
        "images": images,
        "bank_rows": {"predicted": bank_rows(shape, images), "measured": rows},
        "training_seconds": {"predicted": prediction.training, "measured": training},
        "bank_and_kmeans_seconds": {
            "predicted": prediction.bank_pass + prediction.kmeans,
            "measured": bank,
        },
        "epoch_seconds": {"predicted": prediction.seconds, "measured": training + bank},
    }


def table(shape: Shape, costs: Costs) -> list[dict[str, Any]]:
    """Predict every combination of data set, number of ranks and mode."""
    return [
        row(name, images, ranks, mode, costs, predict(shape, costs, images, ranks, mode))
        for name, images in DATA_SETS.items()
        for ranks in RANKS
        for mode in MODES
    ]


def row(
    name: str, images: int, ranks: int, mode: str, costs: Costs, prediction: Prediction
) -> dict[str, Any]:
    """One line of the table."""
    return {
        "data": name,
        "images": images,
        "ranks": ranks,
        "mode": mode,
        "memory_gib": prediction.memory / GIB,
        "kept_gib": prediction.kept / GIB,
        "bank_gib": prediction.bank / GIB,
        "sent_gib": prediction.sent / GIB,
        "epoch_seconds": prediction.seconds,
        "stops_first": first_stop(costs, prediction),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Format the table for human readers: memory and sent bytes per rank, time per epoch."""
    lines = ["| images | ranks | bank | memory | sent | an epoch | what stops it first |", "|" + "--|" * 7]
    for r in rows:
        sizes = f"{r['memory_gib']:,.1f} GiB | {r['sent_gib']:,.1f} GiB | {r['epoch_seconds'] / 3600:,.2f} h"
        lines.append(f"| {r['data']} | {r['ranks']} | {r['mode']} | {sizes} | {r['stops_first']} |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="dino_vits16")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--link", type=float, default=50.0, help="GB/s between ranks, assumed (default 50)")
    parser.add_argument("--memory", type=float, default=80.0, help="GiB of a device, assumed (default 80)")
    parser.add_argument("--check", type=int, nargs=2, default=(64, 128), help="images of the two runs")
    parser.add_argument("--markdown", action="store_true", help="print only the table, in Markdown")
    add_integers(
        parser,
        ("batch_size", 16, "images in a step"),
        ("size", 224, "pixels a side of a view"),
        ("clusters", 500, "centroids of each bank"),
        ("rounds", 3, "timed calls of everything that is measured"),
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    dali.require()  # fails before minutes of measuring
    torch.set_num_threads(options.threads)
    before = machine("torch", device=options.device)
    bench = steps.build(options)
    shape = shape_of(bench, options)
    costs = measured_costs(bench, shape, options)
    report: dict[str, Any] = {
        "machine": before,
        "settings": vars(options),
        "shape": asdict(shape),
        "costs": asdict(costs),
        "checks": [check(shape, costs, images, options) for images in options.check],
        "table": table(shape, costs),
    }
    if options.markdown:
        print(markdown(report["table"]))
        return report
    return give(report)


if __name__ == "__main__":
    main()
