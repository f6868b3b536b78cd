"""The losses of the steps since the last record, left on the device until they are asked for."""

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hcl.engine.step import Losses


class NonFiniteLossError(FloatingPointError):
    """A loss became NaN or infinite; the message names the step and its images."""


class LossRecord:
    """Collects losses step by step without waiting for the device, and times the steps between records.

    Args:
        image_names: of the training set, to name the images of a failed step.
        batch_size: images in a step, over all ranks.
    """

    def __init__(self, image_names: Sequence[str], batch_size: int) -> None:
        self._image_names = image_names
        self._batch_size = batch_size
        self._pending: list[tuple[int, Tensor, np.ndarray]] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Begin to count time here."""
        self._since = time.perf_counter()

    def add(self, step: int, losses: Losses, images: np.ndarray) -> None:
        """Note the losses of one step and the data-set indices of this rank's images in it."""
        self._pending.append((step, torch.stack(losses), images))

    def take(self) -> dict[str, float]:
        """Means over the steps since the last call, and images per second; empty where there were no steps.

        Raises:
            NonFiniteLossError: one of the losses is NaN or infinite.
        """
        if not self._pending:
            return {}
        rows = torch.stack([losses for _, losses, _ in self._pending]).tolist()
        rate = len(rows) * self._batch_size / (time.perf_counter() - self._since)
        for (step, _, images), row in zip(self._pending, rows, strict=True):
            if not all(math.isfinite(value) for value in row):
                self._refuse(step, row, images)
        self._pending.clear()
        self.restart_clock()
        means = np.mean(rows, axis=0).tolist()
        names = ("loss", "loss_fg", "loss_bg", "loss_prediction")
        return dict(zip(names, means, strict=True)) | {"images_per_second": rate}

    def _refuse(self, step: int, row: list[float], images: np.ndarray) -> None:
        names = ", ".join(self._image_names[index] for index in images)
        figures = ", ".join(f"{name} {value}" for name, value in zip(Losses._fields, row, strict=True))
        raise NonFiniteLossError(
            f"the loss of step {step} is not finite ({figures}); images of the step on this rank: {names}. "
            "A checkpoint in the output folder is from before it."
        )
