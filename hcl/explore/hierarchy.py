"""Hierarchical clusters: small ones found by k-means, merged step by step into fewer."""

from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hcl.inference.ward import groups_of, ward_tree
from kernels.kmeans import kmeans, nearest_centroid

SAMPLE = 65_536
"""Maximum number of tokens from which the small clusters are found."""


class Cut(NamedTuple):
    """The hierarchy at one number of clusters.

    Attributes:
        of_leaf: (leaves,) int64, the cluster of each leaf. A cluster is named by its first leaf, so that a
            cluster that does not change between two cuts keeps its name.
        names: (K,) int64 names of the clusters, ascending.
        centroids: (K, C) float32 of unit length, in the order of the names.
    """

    of_leaf: Tensor
    names: Tensor
    centroids: Tensor


class Hierarchy:
    """Small clusters, the leaves, and the tree that Ward's method makes of them.

    Args:
        centroids: (leaves, C) float32 of unit length, at least two.
    """

    def __init__(self, centroids: Tensor) -> None:
        self.leaves = centroids
        self._tree = ward_tree(centroids)

    @classmethod
    def of(cls, tokens: Tensor, leaves: int, *, seed: int) -> Self:
        """Build the hierarchy of tokens.

        Args:
            tokens: (n, C) float32 of unit length, on the CPU.
            leaves: number of leaves to find, at most one per token.
            seed: seed of k-means.

        Raises:
            ValueError: there are fewer than two tokens.
        """
        if len(tokens) < 2:
            raise ValueError(
                f"{len(tokens)} tokens are too few for a hierarchy: use more images, or larger ones"
            )
        chosen = np.linspace(0, len(tokens) - 1, min(SAMPLE, len(tokens))).round().astype(int)
        found = kmeans(tokens[chosen], min(leaves, len(chosen)), iterations=25, seed=seed, spherical=True)
        return cls(found.centroids)

    def leaf_of(self, tokens: Tensor) -> Tensor:
        """Return the nearest leaf of each of the tokens (n, C): (n,) int64."""
        return nearest_centroid(tokens, self.leaves)

    def cut(self, clusters: int) -> Cut:
        """Cut the tree into this number of clusters, or fewer if merges have equal cost.

        Raises:
            ValueError: the number does not lie between 2 and that of the leaves.
        """
        if not 2 <= clusters <= len(self.leaves):
            raise ValueError(f"clusters is {clusters}; it must lie between 2 and {len(self.leaves)}")
        branches = groups_of(self._tree, clusters)
        same = branches[:, None] == branches
        of_leaf = same.int().argmax(dim=1)
        names = of_leaf.unique()
        sums = torch.stack([self.leaves[of_leaf == name].sum(dim=0) for name in names])
        return Cut(of_leaf, names, F.normalize(sums, dim=1))
