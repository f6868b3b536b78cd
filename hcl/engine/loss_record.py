"""The losses of the steps since the last record, left on the device until they are asked for."""

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
    """Figures of the steps since the last record, and those steps that failed."""

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
        """Begin to count time here."""
        self._since = time.perf_counter()

    def add(self, step: int, outcome: Outcome) -> None:
        """Note what one step came to."""
        row = torch.stack([*outcome.losses, outcome.applied.to(outcome.losses.total.dtype)])
        self._pending.append((step, row))

    def take(self) -> Taken:
        """What the steps since the last call came to.

        Returns:
            Means over the steps whose update was applied, images per second, and how many steps were skipped
            where some were; empty where there were no steps at all.
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
        """Whether the mean loss over the epoch's applied steps is the lowest of the run so far.

        Raises:
            FloatingPointError: none was applied.
        """
        if not self._epoch_steps:
            raise FloatingPointError(
                "no step of a whole epoch was finite, so that all were skipped: lower --optimiser.lr, "
                "try --precision fp32, and look at the images and backbone weights"
            )
        mean = self._epoch_sum / self._epoch_steps
        self._epoch_sum, self._epoch_steps = 0.0, 0
        is_best = mean < self._best
        self._best = min(mean, self._best)
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """What the record of a resumed run goes on from; nothing may be pending."""
        return {
            "epoch_loss_sum": self._epoch_sum,
            "epoch_loss_steps": self._epoch_steps,
            "best_loss": self._best,
            "skipped_steps": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._epoch_sum = state["epoch_loss_sum"]
        self._epoch_steps = state["epoch_loss_steps"]
        self._best = state["best_loss"]
        self.skipped = state["skipped_steps"]
