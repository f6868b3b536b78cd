"""A training step as one CUDA graph: a host that is slower than its GPU launches only once per step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hcl.clustering.mogo import Centroids
from hcl.engine.replay import Graph
from hcl.engine.step import Outcome, TrainingStep, Views


class ReplayedStep:
    """Replaces a step: records it at the second call with the same shapes and settings, then replays it.

    Only steps of one micro-batch, in a single process on a GPU, between clusterings, are recorded: the online
    mode makes new centroids in every step, and ranks exchange gradients, which one rank's graph does not
    include. All other steps run directly. A replay overwrites the result of the one before; whoever keeps a
    part of it for longer must copy it.

    Args:
        step: the step to replace; its optimiser must be ready to be captured (``capturable``).
    """

    def __init__(self, step: TrainingStep) -> None:
        self._step = step
        self._graph: Graph | None = None
        self._recorded_for: object = None
        self._centroids: Centroids | None = None

    @property
    def halted(self) -> Tensor:
        """0-d bool, whether updates have stopped."""
        return self._step.halted

    def __call__(self, views: Sequence[Views]) -> Outcome:
        """Update the heads on one global batch, as `TrainingStep` does."""
        if not self._may_be_recorded(views):
            return self._step(views)
        (pair,) = views
        self._keep_centroids_in_place()
        key = (pair[0].shape, pair[0].dtype, self._learning_rate, self._centroids and id(self._centroids))
        if key != self._recorded_for:
            self._graph, self._recorded_for = None, key
            return self._step(views)
        if self._graph is None:
            self._graph = Graph(lambda first, second: self._step([(first, second)]), *pair)
        return self._graph(*pair)

    def _may_be_recorded(self, views: Sequence[Views]) -> bool:
        step = self._step
        alone = step.world.size == 1 and len(views) == 1
        return alone and step.world.device.type == "cuda" and step.clustering.config.mode == "epoch"

    @property
    def _learning_rate(self) -> float:
        """The learning rate, which becomes part of the recording."""
        return self._step.optimizer.param_groups[0]["lr"]

    def _keep_centroids_in_place(self) -> None:
        """Copy new centroids into the recorded ones if there are as many of them."""
        new, old = self._step.clustering.centroids, self._centroids
        if new is old or new is None:
            return
        if old is None or [side.shape for side in old] != [side.shape for side in new]:
            self._centroids = new
            return
        torch._foreach_copy_(list(old), list(new))
        self._step.clustering.centroids = old
