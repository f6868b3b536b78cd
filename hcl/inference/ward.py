"""Clusters joined to fewer (Ward, "Hierarchical Grouping to Optimize an Objective Function", 1963).

Ward's criterion makes groups of like size, where average linkage leaves one that holds nearly all.
"""

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor


def ward_tree(centroids: Tensor) -> np.ndarray:
    """The joins of centroids (K, C), at least two, in scipy's form: (K - 1, 4) float64."""
    return linkage(centroids.double().cpu().numpy(), "ward")


def groups_of(tree: np.ndarray, count: int) -> Tensor:
    """The group, from 0 on, of each centroid of a `ward_tree`: (K,) int64 on the CPU.

    There are ``count`` groups, or fewer where joins are of equal cost, as of centroids that coincide.
    """
    return torch.from_numpy(fcluster(tree, count, "maxclust").astype(np.int64) - 1)
