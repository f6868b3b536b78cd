"""Agreement of the exact dense CRF with pydensecrf: `python -m benchmarks.crf_agreement`.

Takes files from `benchmarks.crf_photographs`, with or without `labels` (255 is not scored), or generates
scenes. Prints JSON: for every tolerance the share of pixels on which the labels agree, the share of tile
pairs that were skipped by their bounding boxes, the mean IoU if labels are known, and the seconds per image
with the speed-up over one process of pydensecrf.

On a GPU the exact CRF is the Triton kernel, timed on its second call, with probabilities and marginals on the
GPU. Otherwise the same tiles are visited in plain torch and float32, also at full size: half a minute to two
minutes of one core for an image of 448 x 448.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.crf_scenes import Scene, generate_scenes, read_scenes
from benchmarks.crf_tiles import Filter, block_sparse_filter, near_tiles
from benchmarks.machine import give, machine
from benchmarks.options import Parser
from hcl.evaluation.metrics import SegmentationScores
from kernels.crf import dense_crf
from kernels.crf.energy import Pairwise, unary_energy
from kernels.crf.gaussian import gaussian_matrices
from kernels.crf.tiles import build_tiles

PAIRWISE = Pairwise(
    gaussian_sxy=1.0, gaussian_compat=3.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0
)
ITERATIONS = 10


def mean_field(probabilities: Tensor, bilateral: Filter, iterations: int, pairwise: Pairwise) -> Tensor:
    """Alternate messages and softmax in plain torch, on (B, C, H, W) float32."""
    unary = unary_energy(probabilities)
    along_rows, along_columns = gaussian_matrices(unary, pairwise.gaussian_sxy)
    scale = bilateral(torch.ones_like(unary[:, :1])).rsqrt()
    marginals = (-unary).softmax(dim=1)
    for _ in range(iterations):
        message = pairwise.gaussian_compat * (along_rows @ marginals @ along_columns)
        message += pairwise.bilateral_compat * scale * bilateral(scale * marginals)
        marginals = (message - unary).softmax(dim=1)
    return marginals


class Labelled(NamedTuple):
    """Labels (H, W) of a scene, the seconds that they took, and the share of tile pairs skipped."""

    labels: Tensor
    seconds: float = 0.0
    skipped: float = 0.0


def exact_labels(scene: Scene, tolerance: float, device: torch.device) -> Labelled:
    """Label a scene by the exact CRF."""
    probabilities, images = scene.probabilities[None].to(device), scene.image[None].to(device)
    near = near_tiles(build_tiles(images, PAIRWISE), tolerance)

    def by_triton() -> Tensor:
        return dense_crf(probabilities, images, tolerance=tolerance, impl="triton")

    def by_torch() -> Tensor:
        tiles = build_tiles(images, PAIRWISE)
        bilateral = block_sparse_filter(tiles, near_tiles(tiles, tolerance)[0])
        return mean_field(probabilities, bilateral, ITERATIONS, PAIRWISE)

    marginals, seconds = timed(by_triton if device.type == "cuda" else by_torch, device)
    return Labelled(marginals[0].argmax(dim=0).cpu(), seconds, 1 - near.float().mean().item())


def timed(act: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """Return a call's result and its seconds; on a GPU an earlier call compiles the kernels."""
    if device.type == "cuda":
        act()
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = act()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return result, time.perf_counter() - start


class Tally:
    """Statistics of one way of labelling, over all scenes."""

    def __init__(self, classes: int) -> None:
        self.scores = SegmentationScores(classes)
        self.agreement: list[float] = []
        self.skipped: list[float] = []
        self.seconds: list[float] = []

    def add(self, found: Labelled, published: Tensor, scene: Scene) -> None:
        """Count one scene, labelled in this way and by pydensecrf."""
        self.agreement.append((found.labels == published).double().mean().item())
        self.seconds.append(found.seconds)
        self.skipped.append(found.skipped)
        if scene.labels is not None:
            self.scores.update(found.labels[None], scene.labels[None])

    def numbers(self, published: "Tally") -> dict[str, float | None]:
        """Return means over the scenes, median seconds, least agreement, and mean IoU of labelled scenes.

        Args:
            published: the tally of pydensecrf.
        """
        taken = median(self.seconds)
        return {
            "agreement": fmean(self.agreement),
            "least_agreement": min(self.agreement),
            "tile_pairs_skipped": fmean(self.skipped),
            "seconds_per_image": taken,
            "speedup": median(published.seconds) / taken if taken else None,
            "miou": self.scores.compute().miou_present if self.scores.update_called else None,
        }


def compare(
    scenes: Iterable[Scene], tolerances: Sequence[float], device: torch.device
) -> dict[str, dict[str, float | None]]:
    """Label every scene by pydensecrf in one process, by the probabilities alone, and exactly."""
    tallies: dict[str, Tally] = {}
    for scene in tqdm(scenes, unit="image", disable=None):
        published = published_labels(scene)
        ways = {"pydensecrf": published, "no CRF": Labelled(scene.probabilities.argmax(dim=0))}
        for tolerance in tolerances:
            ways[f"exact, tolerance {tolerance:g}"] = exact_labels(scene, tolerance, device)
        for name, found in ways.items():
            tally = tallies.setdefault(name, Tally(len(scene.probabilities)))
            tally.add(found, published.labels, scene)
    return {name: tally.numbers(tallies["pydensecrf"]) for name, tally in tallies.items()}


def published_labels(scene: Scene) -> Labelled:
    """Label a scene by one process of pydensecrf."""
    probabilities, images = scene.probabilities[None], scene.image[None]
    marginals, seconds = timed(
        lambda: dense_crf(probabilities, images, impl="pydensecrf", workers=1), probabilities.device
    )
    return Labelled(marginals[0].argmax(dim=0), seconds)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.crf_agreement", description=__doc__)
    parser.add_argument("--photographs", type=Path, nargs="+", metavar="FILE.npz", help="scenes to compare")
    parser.add_argument("--images", type=int, default=None, help="how many scenes (default all; 2 generated)")
    parser.add_argument("--tolerance", type=float, nargs="+", default=[1e-3, 1e-2])
    parser.add_argument("--side", type=int, default=448, help="side of generated scenes, in pixels")
    parser.add_argument("--classes", type=int, default=21, help="classes of generated scenes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    if options.photographs:
        scenes = read_scenes(options.photographs)
    else:
        scenes = generate_scenes(options.images or 2, options.classes, options.side)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = machine("torch", "pydensecrf2", device=device.type)
    files = [path.name for path in options.photographs or []]
    results = compare(islice(scenes, options.images), options.tolerance, device)
    return give({"machine": before, "files": files, "results": results})


if __name__ == "__main__":
    main()
