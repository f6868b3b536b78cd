"""The training loop: bank pass, clustering, steps, records and checkpoints."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hcl.clustering.bank import sample_tokens
from hcl.clustering.mogo import MoGoClustering
from hcl.clustering.targets import momentum_targets
from hcl.data.dataset import open_dataset
from hcl.distributed import World
from hcl.engine.batches import Batches
from hcl.engine.checkpoint import changed_settings, load_checkpoint, save_checkpoint
from hcl.engine.config import MAY_CHANGE_ON_RESUME, TrainConfig
from hcl.engine.interruption import StopRequest, stop_on_signal
from hcl.engine.loss_record import LossRecord
from hcl.engine.run_log import RunLog
from hcl.engine.step import TrainingStep
from hcl.models.backbones import build_backbone
from hcl.models.hcl import HCL
from hcl.models.weights import load_into
from hcl.precision import mixed
from pipelines.training_views import TrainingViews
from pipelines.usable import usable


class Stopped(Exception):  # noqa: N818 - it ends a run early, but it is no error
    """A signal asked the run to end."""


class Trainer:
    """Trains HCL as one configuration says, from the start or from where a run was interrupted.

    Attributes:
        epoch, step: the position: epochs done, and optimiser steps done in the current one.
    """

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.folder = Path(config.output)
        self.epoch = self.step = 0
        self.stop = StopRequest()
        dataset = usable(open_dataset(config.data), config.data.on_error)
        self.batches = Batches(
            len(dataset.samples), config.batch_size, config.accumulation, config.seed, world
        )
        self.losses = LossRecord([str(sample.image) for sample in dataset.samples], config.batch_size)
        self.model = self._build_model()
        self.views = TrainingViews(
            dataset,
            config.views,
            seed=config.seed,
            device=world.device,
            threads=config.threads,
        )
        self.optimizer = torch.optim.AdamW(
            self.model.online.parameters(), lr=config.optimiser.lr, weight_decay=config.optimiser.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, config.optimiser.milestones, config.optimiser.gamma
        )
        self.clustering = MoGoClustering(config.clustering, seed=config.seed, ranks=world)
        self.training_step = TrainingStep(
            self.model, self.optimizer, self.clustering, config.loss, world=world, precision=config.precision
        )

    def _build_model(self) -> HCL:
        torch.manual_seed(self.config.seed)
        model = HCL(build_backbone(self.config.backbone), self.config.head).to(self.world.device)
        if self.config.compile:
            heads = (model.online.seg_head, model.momentum)
            for block in (*model.backbone.vit.blocks, *(head.seg_head for head in heads)):
                block.compile(fullgraph=True)
        return model

    @property
    def checkpoint(self) -> Path:
        """Where this run saves itself."""
        return self.folder / "checkpoint.pt"

    @property
    def global_step(self) -> int:
        """Optimiser steps done since the start of the run."""
        return self.epoch * self.batches.steps_per_epoch + self.step

    def run(self, *, resume: bool = False) -> bool:
        """Train to the last epoch.

        Args:
            resume: continue from the output folder's checkpoint where there is one.

        Returns:
            True when done; False when a signal ended it early, with a checkpoint saved.

        Raises:
            FileExistsError: the output folder holds a run and ``resume`` is False.
            NonFiniteLossError: a loss became NaN or infinite.
        """
        self._start(resume)
        self.log = RunLog(self.folder, enabled=self.world.is_main, step=self.global_step)
        self.log.say(
            f"{self.batches.images} images, {self.batches.steps_per_epoch} steps an epoch, "
            f"{self.world.size} x {self.world.device}, from epoch {self.epoch + 1}, step {self.step + 1}"
        )
        if skipped := self.views.dataset.skipped:
            self.log.record("skipped", self.global_step, count=len(skipped), files=list(skipped))
        with stop_on_signal() as self.stop:
            try:
                while self.epoch < self.config.epochs:
                    if self.step == 0 and self.clustering.due(self.epoch):
                        self._cluster()
                    self._train_epoch()
            except Stopped:
                self.log.say(f"stopped by {self.stop.name}; the same command with --resume continues")
                return False
            finally:
                self.log.close()
        if skipped:
            self.log.say(
                f"{len(skipped)} of the images could not be used: {self.folder / 'log.jsonl'} names them"
            )
        return True

    def _start(self, resume: bool) -> None:
        if not self.checkpoint.exists():
            return
        if not resume:
            raise FileExistsError(
                f"{self.checkpoint} exists: continue that run with --resume, or choose another --output"
            )
        self._load(load_checkpoint(self.checkpoint))

    def _cluster(self) -> None:
        """The bank pass over the views last trained on, then k-means (HCL, section 4)."""
        started = time.perf_counter()
        figures = self.clustering.refresh(self.epoch, self._bank_samples())
        seconds = time.perf_counter() - started
        self.log.record("clustering", self.global_step, epoch=self.epoch, seconds=seconds, **figures)

    def _bank_samples(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self.batches.whole_set()
        stream = self.views.batches(self.epoch, batches, views=(2,))
        with self._progress(len(batches), f"bank {self.epoch + 1}/{self.config.epochs}") as bar:
            for batch in stream:
                with mixed(self.world.device, self.config.precision):
                    targets = momentum_targets(self.model, batch.views[0], self.config.clustering.keep_mass)
                if self.stop and self.world.size == 1:
                    raise Stopped
                yield sample_tokens(
                    targets,
                    batch.indices,
                    self.config.clustering.sample_share,
                    seed=self.config.seed,
                    draw=self.epoch,
                )
                bar.update(len(batch.indices) * self.world.size)

    def _train_epoch(self) -> None:
        """Take the steps to the end of the epoch, then save."""
        self.losses.restart_clock()
        with self._progress(
            self.batches.steps_per_epoch, f"epoch {self.epoch + 1}/{self.config.epochs}", self.step
        ) as bar:
            for indices, views in self._steps():
                losses = self.training_step(views)
                self.step += 1
                self.losses.add(self.global_step, losses, indices)
                bar.update(self.config.batch_size)
                if self.step % self.config.log_every == 0:
                    bar.set_postfix(self._record_losses())
                if self._interrupted():
                    self._save()
                    raise Stopped
                every = self.config.checkpoint_every
                if every and self.step % every == 0 and self.step < self.batches.steps_per_epoch:
                    self._save()
        self._record_losses()
        self.epoch, self.step = self.epoch + 1, 0
        self.schedule.step()
        self._save()

    def _steps(self) -> Iterator[tuple[np.ndarray, list[tuple[Tensor, Tensor]]]]:
        """The rest of the epoch: for each step, this rank's image indices and micro-batches of two views."""
        stream = self.views.batches(
            self.epoch + 1, self.batches.training(self.epoch, self.step), views=(1, 2)
        )
        group = []
        for batch in stream:
            group.append(batch)
            if len(group) == self.config.accumulation:
                yield (
                    np.concatenate([part.indices for part in group]),
                    [(part.views[0], part.views[1]) for part in group],
                )
                group = []

    def _interrupted(self) -> bool:
        """Whether to stop now; several ranks agree on it when they record their losses."""
        if self.world.size == 1:
            return bool(self.stop)
        return self.step % self.config.log_every == 0 and self.world.any(bool(self.stop))

    def _record_losses(self) -> dict[str, float]:
        figures = self.losses.take()
        if figures:
            lr = self.optimizer.param_groups[0]["lr"]
            self.log.record("step", self.global_step, epoch=self.epoch, lr=lr, **figures)
        return {name: round(value, 4) for name, value in figures.items()}

    def _progress(self, steps: int, title: str, done: int = 0) -> tqdm:
        batch = self.config.batch_size
        return tqdm(
            total=steps * batch,
            initial=done * batch,
            desc=title,
            unit="image",
            disable=None if self.world.is_main else True,
        )

    def _save(self) -> None:
        self._record_losses()
        if self.world.is_main:
            save_checkpoint(self._state(), self.checkpoint)
        self.world.barrier()

    def _state(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "arch": self.config.backbone.name,
            "epoch": self.epoch,
            "step": self.step,
            "online_seg_head": self.model.online.seg_head.state_dict(),
            "momentum_seg_head": self.model.momentum.state_dict(),
            "predictor": self.model.online.predictor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **self.clustering.state_dict(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        differences = changed_settings(state["config"], asdict(self.config), MAY_CHANGE_ON_RESUME)
        if differences:
            raise ValueError(
                f"{self.checkpoint} belongs to a run with other settings:\n  " + "\n  ".join(differences)
            )
        load_into(self.model.online.seg_head, state["online_seg_head"], self.checkpoint)
        load_into(self.model.momentum, state["momentum_seg_head"], self.checkpoint)
        load_into(self.model.online.predictor, state["predictor"], self.checkpoint)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.clustering.load_state_dict(state, self.world.device)
        self.epoch, self.step = state["epoch"], state["step"]
