"""Speed-up of pydensecrf by worker processes: `python -m benchmarks.crf_workers`.

Labels the same images in three ways that take turns: in one process, in several that are waited for after
every call, and in several with calls in flight, as in evaluation. Prints JSON: the seconds of every round and
the ratios of their medians. Workers that are waited for also wait for each other, so that the size of a call
matters.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.crf_scenes import generate_scenes, read_scenes
from benchmarks.machine import give, machine
from benchmarks.options import Parser
from hcl.evaluation.crf import CRFConfig, refine, refine_batches

Calls = Sequence[tuple[Tensor, Tensor]]


def waited_for(calls: Calls, config: CRFConfig) -> Iterator[Tensor]:
    """Compute the marginals of calls with logits (B, C, H, W), pictures (B, 3, H, W), one after another."""
    return (refine(logits, pictures, config) for logits, pictures in calls)


def in_flight(calls: Calls, config: CRFConfig) -> Iterator[Tensor]:
    """Compute the same, with further calls started while one is waited for."""
    return (marginals for _, marginals in refine_batches(((None, *call) for call in calls), config))


def seconds(way: Callable[[Calls, CRFConfig], Iterator[Tensor]], calls: Calls, workers: int) -> float:
    """Return the wall time until all marginals are computed."""
    start = time.perf_counter()
    for _ in way(calls, CRFConfig(impl="pydensecrf", workers=workers)):
        pass
    return time.perf_counter() - start


def compare(calls: Calls, workers: int, rounds: int) -> dict[str, object]:
    """Time one process and several, round by round in turns; return seconds and ratios of medians."""
    logits, pictures = calls[0]
    seconds(in_flight, [(logits[:1], pictures[:1])] * workers, workers)  # starts the workers
    ways = ((waited_for, 1), (waited_for, workers), (in_flight, workers))
    timed = [[seconds(way, calls, count) for way, count in ways] for _ in range(rounds)]
    alone, waiting, flying = (list(column) for column in zip(*timed, strict=True))
    return {
        "images": sum(len(pictures) for _, pictures in calls),
        "calls": len(calls),
        "seconds_one_process": alone,
        "seconds_workers": waiting,
        "seconds_workers_in_flight": flying,
        "workers": workers,
        "speedup": median(alone) / median(waiting),
        "speedup_in_flight": median(alone) / median(flying),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = Parser(prog="python -m benchmarks.crf_workers", description=__doc__)
    parser.add_argument("--photographs", type=Path, nargs="+", metavar="FILE.npz", help="scenes to label")
    parser.add_argument("--images", type=int, help="how many scenes (default all; 16 generated)")
    parser.add_argument("--batch_size", type=int, help="images per call (default: all)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=448, help="side of generated scenes, in pixels")
    parser.add_argument("--classes", type=int, default=21, help="classes of generated scenes")
    options = parser.parse_args(arguments)
    if options.workers < 2 or options.rounds < 1 or (options.batch_size or 1) < 1:
        parser.error("--workers takes at least 2, --rounds and --batch_size at least 1")
    if options.photographs:
        scenes = list(islice(read_scenes(options.photographs), options.images))
    else:
        scenes = list(generate_scenes(options.images or 16, options.classes, options.side))
    size = options.batch_size or len(scenes)
    logits = torch.stack([scene.probabilities for scene in scenes]).log_().split(size)
    images = torch.stack([scene.image for scene in scenes]).split(size)
    torch.set_num_threads(1)
    calls = list(zip(logits, images, strict=True))
    give(machine("torch", "pydensecrf2") | compare(calls, options.workers, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
