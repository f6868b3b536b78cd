"""Overclustering: k-means of the tokens, each cluster standing for one class (HCL, section 7)."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from hcl.data.dataset import Dataset
from hcl.evaluation.metrics import CLUSTERING_SCORES, ClusteringScores, summary
from hcl.evaluation.pca import fit_pca
from hcl.evaluation.protocol import ImageMode, ProtocolConfig, open_extractor, open_labelled
from hcl.evaluation.tokens import TokenExtractor
from kernels.kmeans import kmeans
from pipelines.labelled_images import EvaluationImages, LabelledBatch

IMAGES_AT_A_TIME = 64

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class OverclusteringConfig(ProtocolConfig):
    """Overclustering: k-means of all tokens, scored after giving each cluster a class.

    Args:
        clusters: K of k-means, or several such as [21, 500]; the tokens are extracted once for all.
        size: side in pixels that images and labels are brought to.
        mode: "resize" to size x size, or "shorter-crop": the shorter side to size, then the centre.
        matching: "precision" gives each cluster the class in which it is most precise; "hungarian" matches
            clusters and classes one to one by IoU (for K = number of classes).
        seeds: k-means runs with the seeds 0 to seeds - 1; mean and standard deviation over them are reported.
        label_resolution: side in cells at which clusters and labels are compared, both taken there by nearest
            neighbour.
        dimensions: of the tokens after standardisation and PCA.
        iterations: of k-means, at most.
        restarts: of k-means for each seed; the one of lowest inertia counts.
        init: how k-means chooses its first centroids.
        token_dtype: in which tokens are kept in memory until PCA; float16 halves the need.
    """

    clusters: int | list[int] = 500
    size: int = 448
    mode: ImageMode = "resize"
    matching: Literal["precision", "hungarian"] = "precision"
    seeds: int = 5
    label_resolution: int = 100
    dimensions: int = 100
    iterations: int = 100
    restarts: int = 5
    init: Literal["random", "k-means++"] = "random"
    token_dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("size", "seeds", "label_resolution", "dimensions", "iterations", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.cluster_numbers or min(self.cluster_numbers) < 1:
            raise ValueError(f"clusters is {self.clusters}; it must be one or more numbers of at least 1")

    @property
    def cluster_numbers(self) -> list[int]:
        """Every K asked for."""
        return self.clusters if isinstance(self.clusters, list) else [self.clusters]


class TokenSet(NamedTuple):
    """Every image's tokens and labels, in the order of the data set.

    Attributes:
        tokens: (images, h * w, C) on the CPU.
        labels: (images, R, R) uint8 on the CPU.
        grid: (h, w).
    """

    tokens: Tensor
    labels: Tensor
    grid: tuple[int, int]


def run(config: OverclusteringConfig, device: torch.device) -> dict[str, Any]:
    """Score the configuration's tokens by overclustering.

    Returns:
        What `hcl.evaluation.report` takes: facts of the run, and under ``results`` one entry for each K.

    Raises:
        ValueError: there are fewer tokens than clusters, or a setting, file or label is not right.
        FileNotFoundError: data or weights are missing.
    """
    dataset = open_labelled(config.data)
    extractor = open_extractor(config, device)
    height, width = extractor.grid(config.size)
    available = len(dataset) * height * width
    if max(config.cluster_numbers) > available:
        raise ValueError(
            f"{max(config.cluster_numbers)} clusters, but the {len(dataset)} images of {dataset.name} have "
            f"only {available} tokens: lower --clusters"
        )
    token_set = extract(extractor, _batches(dataset, config, device), len(dataset), config)
    points, labels = _reduce(token_set.tokens, config.dimensions, device), token_set.labels.to(device)
    if points.shape[1] < config.dimensions:
        logger.warning("PCA to %d dimensions: the tokens have no more", points.shape[1])
    return {
        "data": {"name": dataset.name, "images": len(dataset), "classes": list(dataset.class_names)},
        "label_resolution": f"{config.label_resolution}x{config.label_resolution}",
        "tokens": {"source": config.token_source, "channels": extractor.channels, "grid": [height, width]},
        "pca_dimensions": points.shape[1],
        "results": [
            _score(points, labels, token_set.grid, clusters, dataset, config)
            for clusters in config.cluster_numbers
        ],
    }


def extract(
    extractor: TokenExtractor, batches: Iterable[LabelledBatch], images: int, config: OverclusteringConfig
) -> TokenSet:
    """The tokens and labels of ``images`` images, written as they come into memory set aside for all."""
    grid = extractor.grid(config.size)
    dtype = getattr(torch, config.token_dtype)
    tokens = torch.empty(images, grid[0] * grid[1], extractor.channels, dtype=dtype)
    labels = torch.empty(images, config.label_resolution, config.label_resolution, dtype=torch.uint8)
    with tqdm(total=images, desc="tokens", unit="image", disable=None) as bar:
        for batch in batches:
            assert batch.labels is not None
            rows = torch.as_tensor(batch.indices)
            tokens[rows] = extractor(batch.images).to("cpu", dtype)
            labels[rows] = nearest(batch.labels, config.label_resolution).cpu()
            bar.update(len(rows))
    return TokenSet(tokens, labels, grid)


def nearest(maps: Tensor, size: int) -> Tensor:
    """Maps (B, h, w) of ids to (B, size, size) by nearest neighbour, which rounds towards the first row."""
    rows, columns = (torch.arange(size, device=maps.device) * side // size for side in maps.shape[1:])
    return maps[:, rows[:, None], columns]


def _batches(dataset: Dataset, config: OverclusteringConfig, device: torch.device) -> Iterable[LabelledBatch]:
    return EvaluationImages(
        dataset,
        size=config.size,
        mode=config.mode,
        batch_size=config.batch_size,
        device=device,
        threads=config.threads,
    )


def _reduce(tokens: Tensor, dimensions: int, device: torch.device) -> Tensor:
    rows = tokens.flatten(0, 1)
    return fit_pca(rows, dimensions, device).project(rows)


def _score(
    points: Tensor,
    labels: Tensor,
    grid: tuple[int, int],
    clusters: int,
    dataset: Dataset,
    config: OverclusteringConfig,
) -> dict[str, Any]:
    """Cluster with every seed, and score."""
    scores = []
    for seed in tqdm(range(config.seeds), desc=f"k-means, K = {clusters}", unit="seed", disable=None):
        found = kmeans(
            points,
            clusters,
            iterations=config.iterations,
            seed=seed,
            init=config.init,
            restarts=config.restarts,
        )
        metric = ClusteringScores(
            clusters, len(dataset.class_names), matching=config.matching, ignore_index=dataset.ignore_index
        ).to(points.device)
        _count(metric, found.assignment.view(len(labels), *grid), labels)
        scores.append(metric.compute())
    return {"clusters": clusters, **summary(scores, dataset.class_names, CLUSTERING_SCORES)}


def _count(metric: ClusteringScores, maps: Tensor, labels: Tensor) -> None:
    batches = zip(maps.split(IMAGES_AT_A_TIME), labels.split(IMAGES_AT_A_TIME), strict=True)
    for maps_part, labels_part in batches:
        metric.update(nearest(maps_part, labels_part.shape[-1]), labels_part)
