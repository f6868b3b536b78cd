"""Matching of clusters with classes, computed from the confusion matrix (HCL, section 7)."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def many_to_one_by_precision(confusion: Tensor) -> Tensor:
    """Assign each cluster the class in which it has the highest precision; ties go to the lowest class id.

    Args:
        confusion: (clusters, classes) pixel counts.

    Returns:
        (clusters,) int64 class ids. A cluster without pixels gets class 0, where it changes nothing.
    """
    return confusion.argmax(dim=1)


def hungarian(confusion: Tensor) -> Tensor:
    """Match clusters one to one with classes so that the sum of their IoU is largest.

    Args:
        confusion: (clusters, classes) pixel counts.

    Returns:
        (clusters,) int64 class ids; clusters that are left without a class get class 0.
    """
    counts = confusion.cpu().numpy()
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    clusters, classes = linear_sum_assignment(counts / np.maximum(union, 1), maximize=True)
    mapping = torch.zeros(len(counts), dtype=torch.int64)
    mapping[clusters] = torch.from_numpy(classes)
    return mapping.to(confusion.device)


def joined(confusion: Tensor, mapping: Tensor) -> Tensor:
    """Sum the rows of each class's clusters: (clusters, classes) pixel counts to (classes, classes).

    Args:
        confusion: (clusters, classes) pixel counts.
        mapping: (clusters,) int64 class ids.
    """
    classes = confusion.shape[1]
    return confusion.new_zeros(classes, classes).index_add_(0, mapping, confusion)


MATCHINGS = {"precision": many_to_one_by_precision, "hungarian": hungarian}
