"""Training views per second: `python -m benchmarks.pipeline` prints one JSON object.

Measures DALI on the CPU, DALI on a GPU if there is one, both also with images decoded once and kept, and the
published way: PIL and transforms image by image, one process per core. For comparison, the report gives how
many images per second the training step consumes. Each source makes all images once to warm up; the epochs
after that count, and the sources take turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import steps, train_step
from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from benchmarks.published_views import PublishedViews
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.samples import Dataset
from hcl.data.scenes import write_scenes
from kernels.processors import usable_processors
from pipelines.draws import ViewsConfig
from pipelines.training_views import TrainingViews

Epoch = Callable[[], None]


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Dataset]:
    """Open the photographs of a folder, or generate scenes."""
    if options.root:
        yield open_dataset(DataConfig("folder", str(options.root)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        write_scenes(root, train=options.images, val=1, size=448)
        yield open_dataset(DataConfig("scenes", str(root), "train"))


def sources(dataset: Dataset, options: argparse.Namespace) -> dict[str, Epoch]:
    """Return, by name, functions that make all views of the data set once."""
    loader = DataLoader(
        PublishedViews(dataset, ViewsConfig(size=options.size), seed=7),
        batch_size=options.batch_size,
        num_workers=options.threads,
        # A fork of this process could hang when it ends its copy of a DALI pipeline.
        multiprocessing_context="forkserver",
        persistent_workers=True,
    )

    def published() -> None:
        for _ in loader:
            pass

    found = {"published": published}
    for name, device in {"dali_cpu": "cpu", "dali_gpu": "cuda"}.items():
        if device == "cpu" or torch.cuda.is_available():
            found[name] = dali(dataset, options, device)
            found[f"{name}_kept"] = dali(dataset, options, device, keep_images=True)
    return found


def dali(dataset: Dataset, options: argparse.Namespace, device: str, *, keep_images: bool = False) -> Epoch:
    """Return a function that makes this project's views of the whole data set."""
    config, indices = ViewsConfig(size=options.size), np.arange(len(dataset))
    batches = [indices[i : i + options.batch_size] for i in range(0, len(dataset), options.batch_size)]
    views = TrainingViews(
        dataset, config, seed=7, device=device, threads=options.threads, keep_images=keep_images
    )

    def epoch() -> None:
        for _ in views.batches(0, batches):
            pass
        train_step.synchronise(torch.device(device))

    return epoch


def rates(epochs: dict[str, Epoch], images: int, rounds: int) -> dict[str, float]:
    """Measure the images per second of each source, at the median of its epochs."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - start)
    return {name: images / float(np.median(values[1:])) for name, values in seconds.items()}


def dali_rate(options: argparse.Namespace) -> float:
    """Measure the images per second of this project's views on ``options.device``, on generated scenes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        images = 2 * options.batch_size
        write_scenes(root, train=images, val=1, size=2 * options.size)
        dataset = open_dataset(DataConfig("scenes", str(root), "train"))
        return rates({"dali": dali(dataset, options, options.device)}, images, options.rounds)["dali"]


def step_rate(options: argparse.Namespace) -> float:
    """Measure the images per second that the bf16 step consumes, on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments = ["--device", device, "--backbone", options.backbone, "--size", str(options.size)]
    bench = steps.build(train_step.parse([*arguments, "--batch_size", str(options.step_batch_size)]))
    step, _ = steps.own_step(bench, "bf16", compiled=device == "cuda")
    times = train_step.take_turns({"step": step}, options.rounds, bench.world.device)["step"]
    return options.step_batch_size / float(np.median(times))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--root", type=Path, help="a folder of photographs (default: generated scenes)")
    parser.add_argument("--backbone", default="dino_vits16", help="backbone of the step")
    add_integers(
        parser,
        ("images", 256, "generated scenes"),
        ("batch_size", 64, "images that are made together"),
        ("step_batch_size", 16, "images in a step"),
        ("size", 224, "pixels a side of a view"),
        ("threads", usable_processors(), "threads of DALI, and processes of the published way"),
        ("rounds", 3, "epochs of each source that count"),
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = machine("torch", "pillow", "nvidia-dali", device=device)
    with opened(options) as dataset:
        images = len(dataset)
        measured = rates(sources(dataset, options), images, options.rounds)
    eaten = step_rate(options)
    report = {
        "machine": before,
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()},
        "images": images,
        "images_per_second": measured,
        "step_images_per_second": eaten,
        "times_the_step": {name: rate / eaten for name, rate in measured.items()},
        "times_published": {name: rate / measured["published"] for name, rate in measured.items()},
    }
    return give(report)


if __name__ == "__main__":
    main()
