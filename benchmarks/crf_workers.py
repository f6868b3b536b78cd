"""What worker processes gain the dense CRF by pydensecrf: `python -m benchmarks.crf_workers`.

Labels the same images in one process and in several, in turns, and prints JSON: seconds of every round and
the ratio of their medians. Workers wait for each other at the end of a call, so that its size matters.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.crf_scenes import generate_scenes, read_scenes
from benchmarks.machine import give, machine
from kernels.crf import dense_crf


def seconds(calls: Sequence[tuple[Tensor, Tensor]], workers: int) -> float:
    """Wall time of calls with probabilities (B, C, H, W) and images (B, 3, H, W), one after another."""
    start = time.perf_counter()
    for probabilities, images in calls:
        dense_crf(probabilities, images, impl="pydensecrf", workers=workers)
    return time.perf_counter() - start


def compare(calls: Sequence[tuple[Tensor, Tensor]], workers: int, rounds: int) -> dict[str, object]:
    """Seconds of one process and of several, round by round in turns, and the ratio of their medians."""
    seconds([(belief[:workers], image[:workers]) for belief, image in calls[:1]], workers)  # so they start
    timed = [[seconds(calls, count) for count in (1, workers)] for _ in range(rounds)]
    alone, together = (list(column) for column in zip(*timed, strict=True))
    return {
        "images": sum(len(images) for _, images in calls),
        "calls": len(calls),
        "seconds_one_process": alone,
        "seconds_workers": together,
        "workers": workers,
        "speedup": median(alone) / median(together),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crf_workers", description=__doc__)
    parser.add_argument("--probabilities", type=Path, nargs="+", metavar="FILE.npz", help="scenes to label")
    parser.add_argument("--images", type=int, help="only so many; 16 where they are generated")
    parser.add_argument("--batch_size", type=int, help="images a call; all unless told")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=448, help="of generated scenes, in pixels")
    parser.add_argument("--classes", type=int, default=21, help="of generated scenes")
    options = parser.parse_args(arguments)
    if options.workers < 2 or options.rounds < 1 or (options.batch_size or 1) < 1:
        parser.error("--workers takes at least 2, --rounds and --batch_size at least 1")
    if options.probabilities:
        scenes = list(islice(read_scenes(options.probabilities), options.images))
    else:
        scenes = list(generate_scenes(options.images or 16, options.classes, options.side))
    size = options.batch_size or len(scenes)
    probabilities = torch.stack([scene.probabilities for scene in scenes]).split(size)
    images = torch.stack([scene.image for scene in scenes]).split(size)
    torch.set_num_threads(1)
    calls = list(zip(probabilities, images, strict=True))
    give(machine("torch", "pydensecrf2") | compare(calls, options.workers, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
