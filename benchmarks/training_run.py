"""A whole training, from files to the last checkpoint: `python -m benchmarks.training_run` prints JSON.

The images are generated scenes unless a folder is given, by default as many as PASCAL VOC's `trainaug`, and
with as many pixels as its photographs; the backbone has random weights. Neither affects the cost of a
training. Writing the images does not count; everything that the program does with them counts, including the
check of the files before training.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from hcl.clustering.mogo import ClusteringConfig
from hcl.data.dataset import DataConfig
from hcl.data.scenes import draw_scene
from hcl.distributed import World
from hcl.engine.config import TrainConfig
from hcl.engine.log_reader import read_records
from hcl.engine.trainer import Trainer
from hcl.memory import GIB
from hcl.models.backbones import BACKBONES, BackboneConfig
from hcl.models.vit import VisionTransformer, initialise
from hcl.precision import Precision
from kernels.processors import usable_processors
from pipelines.draws import ViewsConfig


def write_images(folder: Path, count: int, side: int) -> None:
    """Write ``count`` JPEGs of ``side``² pixels, with one process per core."""
    folder.mkdir()
    with ProcessPoolExecutor(usable_processors(), get_context("spawn")) as pool:
        for _ in pool.map(partial(_write_image, folder, side), range(count), chunksize=32):
            pass


def _write_image(folder: Path, side: int, number: int) -> None:
    pixels, _ = draw_scene(side, np.random.default_rng(number))
    Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=95)


def write_weights(path: Path, backbone: str) -> None:
    """Write random weights of a backbone."""
    torch.manual_seed(0)
    vit = VisionTransformer(BACKBONES[backbone].vit)
    initialise(vit)
    torch.save(vit.state_dict(), path)


def configuration(options: argparse.Namespace, folder: Path) -> TrainConfig:
    """Return the published settings, except for what the command line sets."""
    return TrainConfig(
        data=DataConfig("folder", str(options.root or folder / "images")),
        output=str(folder / "run"),
        epochs=options.epochs,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
        compile=options.compile,
        cuda_graphs=options.cuda_graphs,
        threads=options.threads,
        keep_images=options.keep_images,
        views=ViewsConfig(size=options.size),
        backbone=BackboneConfig(options.backbone, str(folder / "weights.pth")),
        clustering=ClusteringConfig(
            foreground_clusters=options.clusters, background_clusters=options.clusters
        ),
    )


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train once; return wall times, and the times of the parts from the run's own log."""
    if options.root is None:
        write_images(folder / "images", options.images, options.side)
    write_weights(folder / "weights.pth", options.backbone)
    started = time.perf_counter()
    trainer = Trainer(configuration(options, folder), World.alone(torch.device(options.device)))
    begun = time.perf_counter()
    if not trainer.run():
        sys.exit("a signal stopped the training before its end")
    ended = time.perf_counter()
    records = read_records(folder / "run" / "log.jsonl")
    banks = [record["seconds"] for record in records if record["kind"] == "clustering"]
    rates = [record["images_per_second"] for record in records if record["kind"] == "step"]
    report = {
        "images": trainer.batches.images,
        "seconds": ended - started,
        "start_seconds": begun - started,
        "epoch_seconds": (ended - begun) / options.epochs,
        "clustering_seconds": banks,
        "step_images_per_second": np.quantile(rates, (0.2, 0.5, 0.8)).tolist(),
        "images_decoded": trainer.keeping.reason,
        "bank": trainer.bank_pass.reason,
    }
    if options.device == "cuda":
        report["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    return report


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.training_run", description=__doc__)
    parser.add_argument("--root", help="a folder of images (default: generated scenes)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="dino_vits16")
    parser.add_argument("--precision", choices=get_args(Precision), default="bf16")
    parser.add_argument("--compile", action="store_true", help="compile blocks and heads")
    parser.add_argument("--cuda_graphs", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--keep_images", choices=("auto", "always", "never"), default="auto")
    parser.add_argument("--threads", type=int, default=usable_processors(), help="threads of data loading")
    add_integers(
        parser,
        ("images", 10_582, "images in the data set"),
        ("side", 432, "pixels a side of an image; 432² are about 500 x 375"),
        ("epochs", 10, "passes over the images"),
        ("batch_size", 64, "images in a step"),
        ("size", 224, "pixels a side of a view"),
        ("clusters", 500, "centroids of each bank"),
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    before = machine("torch", "nvidia-dali", device=options.device)
    with tempfile.TemporaryDirectory() as folder:
        return give({"machine": before, "settings": vars(options), **measure(options, Path(folder))})


if __name__ == "__main__":
    main()
