"""k-means and its parts: nearest centroid, Lloyd step, whole clusterings, momentum centroids (HCL, 4 and 11).

`operations` are what an implementation must provide; `lloyd` and `momentum` are written in terms of them.
"""

from kernels.kmeans.lloyd import KMeans, NotFiniteError, kmeans
from kernels.kmeans.momentum import MomentumUpdate, momentum_centroid_update
from kernels.kmeans.operations import cluster_sums, lloyd_step, nearest_centroid
from kernels.kmeans.reference import LloydStep
from kernels.kmeans.seeding import initial_centroids

__all__ = [
    "KMeans",
    "LloydStep",
    "MomentumUpdate",
    "NotFiniteError",
    "cluster_sums",
    "initial_centroids",
    "kmeans",
    "lloyd_step",
    "momentum_centroid_update",
    "nearest_centroid",
]
