"""The losses of the steps since the last record, kept on the device until they are read."""

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hcl.engine.step import Losses, Outcome


class FailedStep(NamedTuple):
    """A step whose update was left out, and its losses."""

    step: int
    losses: dict[str, float]


class Taken(NamedTuple):
    """Figures of the steps since the last record, and the steps among them that failed."""

    figures: dict[str, float]
    failed: list[FailedStep]


class LossRecord:
    """Collects losses step by step without waiting for the device, and times the steps between records.

    Args:
        batch_size: images in a step, over all ranks.

    Attributes:
        skipped: steps since the start of the run whose update was left out.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._pending: list[tuple[int, Tensor]] = []
        self._epoch_sum, self._epoch_steps = 0.0, 0
        self._best = math.inf
        self.skipped = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Start timing from here."""
        self._since = time.perf_counter()

    def add(self, step: int, outcome: Outcome) -> None:
        """Record the outcome of one step."""
        row = torch.stack([*outcome.losses, outcome.applied.to(outcome.losses.total.dtype)])
        self._pending.append((step, row))

    def take(self) -> Taken:
        """Return the figures of the steps since the last call.

        Returns:
            Means over the steps whose update was applied, images per second and, if there are any, the number
            of skipped steps; empty if there were no steps at all.
        """
        if not self._pending:
            return Taken({}, [])
        rows = torch.stack([row for _, row in self._pending]).tolist()
        figures = {"images_per_second": len(rows) * self._batch_size / (time.perf_counter() - self._since)}
        applied = [row[:-1] for row in rows if row[-1]]
        if applied:
            names = ("loss", "loss_fg", "loss_bg", "loss_prediction")
            figures = dict(zip(names, np.mean(applied, axis=0).tolist(), strict=True)) | figures
        failed = [
            FailedStep(step, dict(zip(Losses._fields, losses, strict=True)))
            for (step, _), (*losses, kept) in zip(self._pending, rows, strict=True)
            if not kept
        ]
        if failed:
            figures["skipped"] = len(failed)
        for losses in applied:
            self._epoch_sum += losses[0]
        self._epoch_steps += len(applied)
        self.skipped += len(failed)
        self._pending.clear()
        self.restart_clock()
        return Taken(figures, failed)

    def end_epoch(self) -> bool:
        """End the epoch; return whether the mean loss over its applied steps is the run's lowest so far.

        Raises:
            FloatingPointError: no step was applied.
        """
        if not self._epoch_steps:
            raise FloatingPointError(
                "no step of a whole epoch was finite, so all of them were skipped: lower --optimiser.lr, "
                "try --precision fp32, and check the images and the backbone weights"
            )
        mean = self._epoch_sum / self._epoch_steps
        self._epoch_sum, self._epoch_steps = 0.0, 0
        is_best = mean < self._best
        self._best = min(mean, self._best)
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a resumed run continues; no step may be pending."""
        return {
            "epoch_loss_sum": self._epoch_sum,
            "epoch_loss_steps": self._epoch_steps,
            "best_loss": self._best,
            "skipped_steps": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from `state_dict`."""
        self._epoch_sum = state["epoch_loss_sum"]
        self._epoch_steps = state["epoch_loss_steps"]
        self._best = state["best_loss"]
        self.skipped = state["skipped_steps"]
