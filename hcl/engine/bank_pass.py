"""The tokens that enter the bank before an epoch, without computing again what training has computed.

The bank before epoch e + 1 samples the momentum head's tokens of the second views that epoch e trained on.
The backbone is frozen, so its outputs for these views are kept from training, and only the head runs again
(its block attends over all tokens of an image, so all of them are kept). Images that were in no batch of the
epoch go through the backbone again, and so do those of steps before a resumed run began: the latter with both
views, as in training, because a batch of another size may round differently.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hcl.clustering.sampling import BankRows, sample_tokens
from hcl.engine.batches import Batches
from hcl.engine.config import TrainConfig
from hcl.engine.learner import Learner
from hcl.engine.targets import level_targets
from hcl.memory import GIB, free_memory
from hcl.models.pm_vit import LevelTokens
from hcl.precision import mixed
from pipelines.training_views import TrainingViews

# Training and clustering need the other half.
SHARE_OF_FREE_MEMORY = 0.5


class BankPass:
    """Provides the levels that every bank is sampled from: kept ones, or computed from the images again.

    Args:
        config: the run's configuration; ``clustering.reuse`` says whether levels are kept.
        learner: its momentum head makes the tokens.
        batches: the run's batches.
        views: views of the training images.
        reserved: bytes of the free memory that something else will take.

    Attributes:
        images: number of images that a bank is made from.
        reuses: whether levels are kept.
        reason: why they are kept or not, in words.

    Raises:
        ValueError: ``clustering.bank_images`` leaves a rank without an image.
    """

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        batches: Batches,
        views: TrainingViews,
        *,
        reserved: int = 0,
    ) -> None:
        self.config, self.learner, self.batches, self.views = config, learner, batches, views
        self.world = learner.world
        self._kept: dict[int, LevelTokens] = {}
        self.images = min(config.clustering.bank_images or batches.images, batches.images)
        if self.images < self.world.size:
            raise ValueError(
                f"clustering.bank_images is {self.images}, but {self.world.size} ranks need "
                "at least one image each"
            )
        self._may_fit = True
        self.reuses, self.reason = self._decide(reserved)

    def _decide(self, reserved: int) -> tuple[bool, str]:
        wanted = self.config.clustering.reuse
        if self.config.clustering.mode == "online":
            return False, "the online mode needs only one bank"
        if self.images < self.batches.images:
            return False, f"they are made from {self.images} of the {self.batches.images} images"
        if wanted != "auto":
            return wanted == "always", f"clustering.reuse is {wanted}"
        needed, free = self._bytes_needed(), free_memory(self.world.device) - reserved
        fits = not self.world.any(needed > SHARE_OF_FREE_MEMORY * free)
        self._may_fit = not self.world.any(needed > free)
        return fits, f"a rank's levels take {needed / GIB:.2f} GiB, and {free / GIB:.2f} GiB are free"

    def _bytes_needed(self) -> int:
        backbone, size = self.learner.model.backbone, self.config.views.size
        grids = [(size // patch) ** 2 for patch in backbone.patch_sizes]
        levels = sum(1 + patches for patches in grids) * backbone.embed_dim * self._dtype.itemsize
        attention = backbone.vit.config.heads * grids[0] * torch.float32.itemsize
        images = self.batches.steps_per_epoch * self.config.batch_size // self.world.size
        return images * (levels + attention)

    @property
    def _dtype(self) -> torch.dtype:
        """The dtype of kept levels: the one that the head's first layer rounds them to."""
        return torch.float32 if self.config.precision == "fp32" else torch.bfloat16

    def resume(self, reused: bool) -> None:
        """Follow the interrupted run's choice, for the same bits, unless a setting or memory forbids it."""
        if self.config.clustering.reuse == "auto" and reused != self.reuses and (self._may_fit or not reused):
            self.reuses, self.reason = reused, f"the resumed run did so; {self.reason}"

    def keep(self, place: int, levels: list[LevelTokens]) -> None:
        """Keep the second view's levels of successive micro-batches, the first at ``place`` in the epoch."""
        if self.reuses:
            self._kept |= {place + i: self._compact(part) for i, part in enumerate(levels)}

    def _compact(self, levels: LevelTokens) -> LevelTokens:
        """Copy a step's levels, because they are slices of a tensor that holds both views' tokens."""
        sequences = tuple(tokens.to(self._dtype, copy=True) for tokens in levels.sequences)
        return LevelTokens(sequences, levels.grids, levels.cls_attention.clone())

    def levels(self, epoch: int) -> Iterator[tuple[np.ndarray, LevelTokens]]:
        """Yield image indices and normalised levels of all this rank's views before ``epoch``, by batch.

        Kept levels are released along the way.
        """
        trained = self.batches.training(epoch - 1) if self.reuses and epoch > 0 else []
        missing = [indices for place, indices in enumerate(trained) if place not in self._kept]
        again = self.views.batches(epoch, missing, views=(1, 2))
        for place, indices in enumerate(trained):
            kept = self._kept.pop(place, None)
            levels = self._both(next(again).views)[1] if kept is None else _cast(kept, torch.float32)
            yield indices, levels if _finite(levels) else self._looked_at_again(epoch, indices)
        next(again, None)  # exhaust it, so that the next epoch can use the same pipeline
        others = self.batches.left_over(epoch - 1) if trained else self.batches.spread_out(self.images)
        for batch in self.views.batches(epoch, others, views=(2,)):
            yield batch.indices, self._one(batch.views[0])

    def _looked_at_again(self, epoch: int, indices: np.ndarray) -> LevelTokens:
        """Recompute levels that were not finite: the fault behind a skipped step may have passed."""
        (batch,) = self.views.batches(epoch, [indices], views=(2,))
        return self._one(batch.views[0])

    def sample(self, epoch: int, indices: np.ndarray, levels: LevelTokens) -> tuple[BankRows, BankRows]:
        """Sample the foreground and background rows that these images give to the bank before ``epoch``."""
        with mixed(self.world.device, self.config.precision):
            targets = level_targets(self.learner.model, levels, self.config.clustering.keep_mass)
        share = self.config.clustering.sample_share
        return sample_tokens(targets, indices, share, seed=self.config.seed, draw=epoch)

    @torch.no_grad()
    def _both(self, views: tuple[Tensor, ...]) -> tuple[LevelTokens, LevelTokens]:
        with mixed(self.world.device, self.config.precision):
            return self.learner.model.backbone.pair((views[0], views[1]))

    @torch.no_grad()
    def _one(self, view: Tensor) -> LevelTokens:
        backbone = self.learner.model.backbone
        with mixed(self.world.device, self.config.precision):
            return backbone.normalised(backbone(view))


def _finite(levels: LevelTokens) -> bool:
    finite = [tokens.isfinite().all() for tokens in (*levels.sequences, levels.cls_attention)]
    return bool(torch.stack(finite).all())  # the host waits for the device once


def _cast(levels: LevelTokens, dtype: torch.dtype) -> LevelTokens:
    return levels._replace(sequences=tuple(tokens.to(dtype) for tokens in levels.sequences))
