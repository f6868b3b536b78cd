"""One optimiser step of HCL: targets, loss with means over all ranks, backward, update (HCL, section 5)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hcl.bounds import require_above_zero
from hcl.clustering.mogo import MoGoClustering
from hcl.clustering.sampling import Targets
from hcl.distributed import World
from hcl.engine.targets import level_targets
from hcl.models.hcl import HCL
from hcl.models.pm_vit import LevelTokens
from hcl.precision import Precision, mixed, product_dtype
from kernels.fba import fba_contrastive

Views = tuple[Tensor, Tensor]


@dataclass
class LossConfig:
    """Settings of the loss.

    Args:
        temperature: temperature of the softmax over centroids.
        momentum: momentum of the momentum head's moving average, in [0, 1].
    """

    temperature: float = 0.07
    momentum: float = 0.996

    def __post_init__(self) -> None:
        require_above_zero(self, "temperature", prefix="loss.")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"loss.momentum is {self.momentum}; it must lie in [0, 1]")


class Losses(NamedTuple):
    """The loss and its parts, each a 0-d tensor: total = (foreground + background) / 2 + prediction / 2."""

    total: Tensor
    foreground: Tensor
    background: Tensor
    prediction: Tensor


class Outcome(NamedTuple):
    """The outcome of a step.

    Attributes:
        losses: means over the global batch.
        applied: 0-d bool, whether the update was applied, which requires everything to be finite.
        momentum_levels: for each micro-batch of this rank the normalised levels of the second view, which do
            not change while the backbone is frozen; slices of larger tensors.
    """

    losses: Losses
    applied: Tensor
    momentum_levels: list[LevelTokens]


class MicroBatch(NamedTuple):
    """What one forward and backward pass needs: the levels of both views, and the targets of the second."""

    online_levels: LevelTokens
    momentum_levels: LevelTokens
    targets: Targets


class TrainingStep:
    """Trains the online branch of ``model`` on one global batch per call.

    Means are over all tokens of all ranks and micro-batches, so that the losses and gradients depend only on
    the images. To this end the momentum branch processes all micro-batches first and counts their foreground
    tokens.

    A loss or gradient that is NaN or infinite never reaches weights, optimiser or centroids: the device skips
    the update, and the host need not wait to know. With ``halt``, all updates stop from then on, so that the
    host, which learns of the failure later, finds everything as the failed step saw it.

    Attributes:
        halted: 0-d bool, whether updates have stopped.
    """

    def __init__(
        self,
        model: HCL,
        optimizer: torch.optim.Optimizer,
        clustering: MoGoClustering,
        config: LossConfig,
        *,
        world: World,
        precision: Precision = "fp32",
        halt: bool = True,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.clustering = clustering
        self.config = config
        self.world = world
        self.precision = precision
        self.halt = halt
        self.halted = torch.zeros((), dtype=torch.bool, device=world.device)
        self.online: torch.nn.Module = model.online
        if world.size > 1:
            self.online = DistributedDataParallel(model.online)

    def __call__(self, views: Sequence[Views]) -> Outcome:
        """Update the heads on one global batch.

        Args:
            views: this rank's micro-batches, each two normalised views (B, 3, H, W) of the same images.

        Returns:
            Means over the global batch, without gradient, and whether the update was applied, both the same
            on every rank; and this rank's momentum levels.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.model.update_momentum(self.config.momentum, hold=self.halted)
        micro_batches = [self._prepare(pair) for pair in views]
        totals = self._token_counts(micro_batches)
        parts, assignments = [], []
        for number, micro_batch in enumerate(micro_batches, start=1):
            with self._gradient_exchange(last=number == len(micro_batches)):
                share, assignment = self._losses(micro_batch, totals)
                (share.total * self.world.size).backward()
            parts.append(torch.stack([part.detach() for part in share]))
            assignments.append(assignment)
        losses = self.world.all_reduce(torch.stack(parts).sum(dim=0))
        left_out = self._update(losses)
        self.clustering.follow(
            torch.cat([batch.targets.tokens.flatten(0, 1) for batch in micro_batches]).float(),
            torch.cat([batch.targets.foreground.flatten() for batch in micro_batches]),
            torch.cat(assignments),
            hold=left_out,
        )
        levels = [batch.momentum_levels for batch in micro_batches]
        return Outcome(Losses(*losses.unbind()), ~left_out, levels)

    def _update(self, losses: Tensor) -> Tensor:
        """Take the optimiser's step if everything is finite; return whether it was skipped, 0-d bool."""
        gradients = [p.grad for p in self.model.online.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        left_out = ~(losses.isfinite().all() & norm.isfinite()) | self.halted
        if self.halt:
            self.halted.copy_(left_out)
        # GradScaler sets this for a fused optimiser: if it is 1, the step changes nothing.
        self.optimizer.found_inf = left_out.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return left_out

    def _prepare(self, views: Views) -> MicroBatch:
        with torch.no_grad(), mixed(self.world.device, self.precision):
            online, momentum = self.model.backbone.pair(views)
            targets = level_targets(self.model, momentum, self.clustering.config.keep_mass)
            return MicroBatch(online, momentum, targets)

    def _token_counts(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Numbers (3,) of foreground, background and all tokens in the global batch, each at least 1."""
        foreground = torch.stack([batch.targets.foreground.sum() for batch in micro_batches]).sum()
        tokens = torch.full_like(foreground, sum(b.targets.foreground.numel() for b in micro_batches))
        counts = self.world.all_reduce(torch.stack([foreground, tokens - foreground, tokens]))
        return counts.clamp(min=1)

    def _gradient_exchange(self, *, last: bool) -> AbstractContextManager[None]:
        if isinstance(self.online, DistributedDataParallel) and not last:
            return self.online.no_sync()
        return nullcontext()

    def _losses(self, micro_batch: MicroBatch, totals: Tensor) -> tuple[Losses, Tensor]:
        """This micro-batch's share of the global means, and its tokens' clusters (M,)."""
        assert self.clustering.centroids is not None
        with mixed(self.world.device, self.precision):
            q_BNC, predicted_BNC = self.online(micro_batch.online_levels)
            # For the loss's products too: in bf16 the tokens are no more exact than this rounding.
            dtype = product_dtype(q_BNC)
        k_MC = micro_batch.targets.tokens.flatten(0, 1).float()
        fba = fba_contrastive(
            q_BNC.flatten(0, 1).to(dtype),
            k_MC.to(dtype),
            micro_batch.targets.foreground.flatten(),
            self.clustering.centroids.foreground.to(dtype),
            self.clustering.centroids.background.to(dtype),
            self.config.temperature,
        )
        foreground = fba.loss_fg * (fba.count_fg / totals[0])
        background = fba.loss_bg * (fba.count_bg / totals[1])
        squared = (predicted_BNC.flatten(0, 1).float() - k_MC).square()
        prediction = squared.mean() * (len(k_MC) / totals[2])
        total = (foreground + background) / 2 + prediction / 2
        return Losses(total, foreground, background, prediction), fba.assignment
