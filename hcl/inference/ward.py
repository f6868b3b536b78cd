"""Merging of clusters (Ward, "Hierarchical Grouping to Optimize an Objective Function", 1963).

Ward's criterion makes groups of similar size, whereas average linkage leaves one that holds nearly all.
"""

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor


def ward_tree(centroids: Tensor) -> np.ndarray:
    """Return the merges of centroids (K, C), at least two, in scipy's format: (K - 1, 4) float64."""
    return linkage(centroids.double().cpu().numpy(), "ward")


def groups_of(tree: np.ndarray, count: int) -> Tensor:
    """Return the group of each centroid of a `ward_tree`, numbered from 0: (K,) int64 on the CPU.

    There are ``count`` groups, or fewer if merges have equal cost, for example of identical centroids.
    """
    return torch.from_numpy(fcluster(tree, count, "maxclust").astype(np.int64) - 1)
