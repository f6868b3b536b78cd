"""Overclustering on a CPU, compared with the same steps done the published way.

`python -m benchmarks.overclustering` prints one JSON object. The values under "ours" and "published" are
measured. The published way can be run with fewer seeds, restarts, iterations and images; its extrapolated
total is then given under "published_extrapolated" and nowhere else.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks import published
from benchmarks.machine import give, machine
from benchmarks.options import Parser, add_integers
from hcl.distributed import World
from hcl.evaluation import clusters
from hcl.evaluation.clusters import KMeansConfig
from hcl.evaluation.metrics import ClusteringScores
from hcl.evaluation.pca import fit_pca
from hcl.evaluation.resolution import nearest
from kernels.kmeans import kmeans

CLASSES = 21
COMPONENTS = 800
IMAGES_AT_A_TIME = 16
# faiss's own default: at most this many rows per cluster are used.
DEFAULT_ROWS_PER_CLUSTER = 256


class TokenSet(NamedTuple):
    """Tokens (images, h * w, C) of a square grid and labels (images, R, R) uint8."""

    tokens: Tensor
    labels: Tensor


def generated(images: int, grid: int, channels: int, resolution: int, seed: int = 0) -> TokenSet:
    """Generate tokens with the structure of real ones: images of a few components, several per class.

    A token is the sum of its component's centre and noise in 128 directions of falling variance, and of noise
    in all directions.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, 129).pow(-0.5)
    mixing = torch.randn(128, channels, generator=generator)
    centres = torch.randn(COMPONENTS, 128, generator=generator) * scale
    tokens = torch.empty(images, grid * grid, channels)
    labels = torch.empty(images, resolution, resolution, dtype=torch.uint8)
    for image in range(images):
        palette = torch.randint(COMPONENTS, (8,), generator=generator)
        coarse = palette[torch.randint(8, (1, -(-grid // 4), -(-grid // 4)), generator=generator)]
        components = nearest(coarse, grid)
        latent = centres[components.flatten()]
        latent = latent + 0.5 * scale * torch.randn(latent.shape, generator=generator)
        tokens[image] = latent @ mixing + torch.randn(grid * grid, channels, generator=generator)
        labels[image] = nearest(components % CLASSES, resolution)[0]
    return TokenSet(tokens, labels)


def opened(path: Path) -> TokenSet:
    """Load the "tokens" and "labels" of a .safetensors file.

    Raises:
        ValueError: one of the two is missing or has another shape.
    """
    tensors = load_file(path)
    missing = {"tokens", "labels"} - tensors.keys()
    if missing:
        raise ValueError(f"{path} holds no {' and no '.join(sorted(missing))}")
    tokens, labels = tensors["tokens"], tensors["labels"]
    if tokens.ndim != 3 or labels.ndim != 3 or len(tokens) != len(labels):
        shapes = tuple(tokens.shape), tuple(labels.shape)
        raise ValueError(f"{path}: expected (images, h * w, C) and (images, R, R), got {shapes}")
    return TokenSet(tokens, labels)


def timed(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[Any, float]:
    """Return the result of a function, and the seconds that it took."""
    start = time.perf_counter()
    result = function(*arguments, **keywords)
    return result, time.perf_counter() - start


def cell_maps(assignment: Tensor, labels: Tensor) -> Tensor:
    """Turn cluster ids (n,) of square grids into maps (images, R, R) of the labels' size."""
    side = int((len(assignment) / len(labels)) ** 0.5)
    return nearest(assignment.view(len(labels), side, side), labels.shape[-1])


def reduce(rows: Tensor, dimensions: int) -> Tensor:
    """Standardise rows and project them to their principal components."""
    return fit_pca([rows], dimensions, rows.device).project(rows)


def score(assignment: Tensor, labels: Tensor, clusters: int) -> float:
    """Compute the mean IoU by one confusion matrix, some images at a time."""
    metric = ClusteringScores(clusters, CLASSES)
    maps = assignment.view(len(labels), -1).split(IMAGES_AT_A_TIME)
    for ids, part in zip(maps, labels.split(IMAGES_AT_A_TIME), strict=True):
        metric.update(cell_maps(ids.flatten(), part), part)
    return metric.compute().miou


def run_ours(data: TokenSet, options: argparse.Namespace) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Run all seeds; return times and results, the reduced tokens, and the first seed's clusters."""
    rows = data.tokens.flatten(0, 1)
    points, pca_s = timed(reduce, rows, options.dimensions)
    found, kmeans_s, mious, scoring_s = [], [], [], []
    for seed in range(options.seeds):
        result, seconds = timed(cluster, points, options, seed, whole=True)
        found.append(result)
        kmeans_s.append(seconds)
        miou, seconds = timed(score, result.assignment, data.labels, options.clusters)
        mious.append(miou)
        scoring_s.append(seconds)
    measured = {
        "pca_s": pca_s,
        "kmeans_s": kmeans_s,
        "scoring_s": scoring_s,
        "protocol_s": pca_s + sum(kmeans_s) + sum(scoring_s),
        "inertia": [result.inertia for result in found],
        "iterations_of_the_best_restart": [result.iterations for result in found],
        "miou": mious,
    }
    return measured, points, found[0].assignment


def cluster(points: Tensor, options: argparse.Namespace, seed: int, *, whole: bool) -> Any:
    """Run the protocol's k-means: in full, or with the published way's share of restarts and iterations."""
    config = KMeansConfig(
        iterations=options.iterations if whole else options.published_iterations,
        restarts=options.restarts if whole else options.published_restarts,
    )
    alone = World.alone(points.device)
    return clusters.cluster(points, slice(None), options.clusters, config, seed=seed, world=alone)


def run_published(
    data: TokenSet, points: Tensor, assignment: Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    """Run the published way's share: PCA of all rows, its k-means of our points, masks of some images."""
    rows = data.tokens.flatten(0, 1).float().numpy()
    _, pca_s = timed(published.reduced_tokens, rows, points.shape[1])
    labels = data.labels[: options.published_images]
    some = assignment[: len(labels) * data.tokens.shape[1]]
    maps = cell_maps(some, labels).numpy()
    scores, scoring_s = timed(published.cluster_scores, maps, labels.numpy(), options.clusters, CLASSES)
    return {
        "pca_s": pca_s,
        "kmeans": faiss_kmeans(points, options, rows_per_cluster=None),
        "kmeans_on_faiss_default_subsample": faiss_kmeans(points, options, DEFAULT_ROWS_PER_CLUSTER),
        "scoring": {"pixels": labels.numel(), "seconds": scoring_s, "miou": scores.miou},
        "scoring_of_the_same_pixels_ours": same_pixels(some, labels, options),
    }


def same_pixels(assignment: Tensor, labels: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Score, in our way, the pixels that the masks were compared on."""
    miou, seconds = timed(score, assignment, labels, options.clusters)
    return {"pixels": labels.numel(), "seconds": seconds, "miou": miou}


def faiss_kmeans(points: Tensor, options: argparse.Namespace, rows_per_cluster: int | None) -> dict[str, Any]:
    """Run faiss's k-means with the published way's share of seeds, restarts and iterations."""
    runs = [
        timed(
            published.token_clusters,
            points.numpy(),
            options.clusters,
            seed=seed,
            iterations=options.published_iterations,
            restarts=options.published_restarts,
            rows_per_cluster=rows_per_cluster,
        )
        for seed in range(options.published_seeds)
    ]
    rows = min((rows_per_cluster or len(points)) * options.clusters, len(points))
    return {
        "rows": rows,
        "restarts": options.published_restarts,
        "iterations": options.published_iterations,
        "seconds": [seconds for _, seconds in runs],
        "inertia": [inertia for (_, inertia), _ in runs],
    }


def same_kmeans(points: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Run our k-means with the published way's share, and compare one run with the machine's matrix rate.

    A plain Lloyd step multiplies all rows with all centroids, 2 N K D operations; n updates need n + 1 steps.
    """
    seeds = range(options.published_seeds)
    runs = [timed(cluster, points, options, seed, whole=False) for seed in seeds]
    one, seconds = timed(kmeans, points, options.clusters, iterations=options.iterations)
    operations = 2 * points.numel() * options.clusters * (one.iterations + 1)
    rate = matrix_rate(points, options.clusters)
    return {
        "seconds": [seconds for _, seconds in runs],
        "inertia": [result.inertia for result, _ in runs],
        "one_run": {
            "seconds": seconds,
            "iterations": one.iterations,
            "plain_lloyd_gflop_s": operations / seconds / 1e9,
            "matrix_gflop_s": rate / 1e9,
            "share_of_matrix_rate": operations / seconds / rate,
        },
    }


def matrix_rate(points: Tensor, clusters: int, calls: int = 9) -> float:
    """Measure the operations per second of a product of rows with K centroids, the median of some calls."""
    rows, centroids = points[: 2**15], points[:clusters].T
    seconds = [timed(torch.mm, rows, centroids)[1] for _ in range(calls)]
    return 2 * rows.numel() * clusters / float(np.median(seconds))


def extrapolated(ours: dict[str, Any], share: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Extrapolate the whole protocol done the published way from its measured share."""
    kmeans_share = share["kmeans"]
    measured = options.published_seeds * kmeans_share["restarts"] * kmeans_share["iterations"]
    whole = options.seeds * options.restarts * options.iterations
    kmeans_s = sum(kmeans_share["seconds"]) * whole / measured
    pixels = options.pixels * options.seeds
    scoring_s = share["scoring"]["seconds"] * pixels / share["scoring"]["pixels"]
    protocol_s = share["pca_s"] + kmeans_s + scoring_s
    return {
        "kmeans_s": kmeans_s,
        "scoring_s": scoring_s,
        "protocol_s": protocol_s,
        "kmeans_speedup": kmeans_s / sum(ours["kmeans_s"]),
        "protocol_speedup": protocol_s / ours["protocol_s"],
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m benchmarks.overclustering", description=__doc__)
    parser.add_argument("--tokens", type=Path, help="a .safetensors file (default: generated tokens)")
    add_integers(
        parser,
        ("images", 445, "generated images"),
        ("grid", 32, "rows of tokens in a generated image"),
        ("channels", 768, "channels of a generated token"),
        ("resolution", 100, "side of the generated labels"),
        ("dimensions", 100, "dimensions after PCA"),
        ("clusters", 500, "number of clusters K"),
        ("seeds", 5, "seeds of the protocol"),
        ("restarts", 5, "runs of k-means for each seed"),
        ("iterations", 100, "iterations of k-means, at most"),
        ("published_seeds", 1, "seeds done the published way"),
        ("published_restarts", 1, "runs done the published way"),
        ("published_iterations", 100, "iterations done the published way"),
        ("published_images", 20, "images scored the published way"),
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command and print its report, which is returned too."""
    options = parse(arguments)
    before = machine("torch", "numpy", "faiss-cpu")
    data = (
        opened(options.tokens)
        if options.tokens
        else generated(options.images, options.grid, options.channels, options.resolution)
    )
    options.pixels = data.labels.numel()
    ours, points, assignment = run_ours(data, options)
    share = run_published(data, points, assignment, options)
    scoring = share["scoring"]["seconds"] / share["scoring_of_the_same_pixels_ours"]["seconds"]
    report = {
        "machine": before,
        "tokens": {"from": str(options.tokens or "generated"), "shape": list(data.tokens.shape)},
        "points": list(points.shape),
        "labels": list(data.labels.shape),
        "settings": {
            name: getattr(options, name) for name in ("clusters", "seeds", "restarts", "iterations")
        },
        "ours": ours,
        "published": share,
        "ours_with_the_published_share_of_kmeans": same_kmeans(points, options),
        "scoring_speedup": scoring,
        "published_extrapolated": extrapolated(ours, share, options),
    }
    return give(report)


if __name__ == "__main__":
    main()
