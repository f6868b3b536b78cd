"""The training loop: bank pass, clustering, steps, records and checkpoints."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from hcl.clustering.mogo import SIDES
from hcl.clustering.sampling import BankRows
from hcl.data.dataset import open_dataset
from hcl.distributed import World
from hcl.engine import non_finite
from hcl.engine.bank_pass import BankPass
from hcl.engine.batches import Batches, require_images
from hcl.engine.config import TrainConfig
from hcl.engine.early_refusals import refuse_early
from hcl.engine.image_identity import identity_of, require_same
from hcl.engine.interruption import StopRequest, stop_on_signal
from hcl.engine.keeping import keeping
from hcl.engine.learner import Learner
from hcl.engine.loss_record import FailedStep, LossRecord
from hcl.engine.run_log import RunLog
from hcl.engine.saved_run import SavedRun
from hcl.engine.step import Views
from hcl.progress import progress
from hcl.provenance import provenance
from pipelines.training_views import TrainingViews
from pipelines.usable import usable


class Stopped(Exception):  # noqa: N818 - it ends a run early, but it is no error
    """A signal asked the run to end."""


class Trainer:
    """Trains HCL with one configuration, from the start or from where a run was interrupted.

    Args:
        config: the run's configuration.
        world: the ranks that train.
        resume: continue from the output folder's checkpoint if there is one.

    Attributes:
        epoch, step: the position: epochs done, and optimiser steps done in the current one.
    """

    def __init__(self, config: TrainConfig, world: World, *, resume: bool = False) -> None:
        self.config = config
        self.world = world
        self.resume = resume
        self.folder = Path(config.output)
        self.saved = SavedRun(self.folder, config.checkpoints_kept, world)
        refuse_early(config, world, self.saved, resume=resume)
        self.epoch = self.step = 0
        self.stop = StopRequest()
        dataset = open_dataset(config.data)
        require_images(len(dataset), config.batch_size)  # before weights are downloaded
        self.learner = Learner(config, world)
        dataset = usable(dataset, config.data.on_error, ranks=world)
        self.batches = Batches(
            len(dataset.samples), config.batch_size, config.accumulation, config.seed, world
        )
        self.images = identity_of(dataset, world)
        self.image_names = [str(sample.image) for sample in dataset.samples]
        self.losses = LossRecord(config.batch_size)
        self.keeping = keeping(config.keep_images, dataset, world)
        self.views = TrainingViews(
            dataset,
            config.views,
            seed=config.seed,
            device=world.device,
            threads=config.threads,
            keep_images=self.keeping.keeps,
        )
        self.bank_pass = BankPass(config, self.learner, self.batches, self.views, reserved=self.keeping.taken)

    @property
    def global_step(self) -> int:
        """Optimiser steps done since the start of the run."""
        return self.epoch * self.batches.steps_per_epoch + self.step

    def run(self) -> bool:
        """Train to the last epoch.

        Returns:
            True when done; False when a signal ended it early, with a checkpoint if it had begun to train.

        Raises:
            ValueError: the run to be continued had other settings or other images.
            CheckpointError: the folder holds checkpoints, but none can be used.
            FloatingPointError: a loss or gradient became NaN or infinite with ``on_non_finite`` "stop", or in
                every step of an epoch.
        """
        refused = self._start()
        self.log = RunLog(
            self.folder,
            enabled=self.world.is_main,
            step=self.global_step,
            logger=self.config.logger,
            settings=asdict(self.config),
        )
        among_ranks = self.world.size > 1
        with stop_on_signal(among_ranks=among_ranks) as self.stop, closing(self.log), closing(self.saved):
            for reason in refused:
                self.log.say(f"passed over: {reason}")
            if self.epoch >= self.config.epochs:
                self.log.say(
                    f"the run has already reached epoch {self.epoch} of {self.config.epochs}: its checkpoint "
                    f"is {self.saved.checkpoints.newest}; to train on, raise --epochs"
                )
                return True
            self._say_what_begins()
            try:
                self._train()
            except Stopped:
                self.log.say(f"stopped by {self.stop.name}; the same command with --resume continues")
                return False
            self._say_what_was_done()
        return True

    def _start(self) -> list[str]:
        """Restore the newest usable checkpoint; return why newer ones were refused."""
        if not self.resume or not self.saved.exists():
            return []
        (state, banks), path, refused = self.saved.load()
        require_same(state["images"], self.images, path)
        self.learner.load_state_dict(state, path, banks)
        self.losses.load_state_dict(state)
        self.bank_pass.resume(state["bank_reuses"])
        self.epoch, self.step = state["epoch"], state["step"]
        return refused

    def _say_what_begins(self) -> None:
        self.log.record("run", self.global_step, **provenance(self.world))
        self.log.say(
            f"{self.batches.images} images, {self.batches.steps_per_epoch} steps per epoch, "
            f"{self.world.size} x {self.world.device.type}, from epoch {self.epoch + 1}, step {self.step + 1}"
        )
        decoded = "once and kept" if self.keeping.keeps else "again for every view"
        self.log.say(f"images are decoded {decoded}: {self.keeping.reason}")
        source = "the tokens of training" if self.bank_pass.reuses else "a separate pass over the images"
        self.log.say(f"token banks come from {source}: {self.bank_pass.reason}")
        if skipped := self.views.dataset.skipped:
            self.log.record("skipped", self.global_step, count=len(skipped), files=list(skipped))

    def _say_what_was_done(self) -> None:
        if self.losses.skipped:
            self.log.say(
                f"{self.losses.skipped} of {self.global_step} steps were skipped because they were not finite"
            )
        if skipped := self.views.dataset.skipped:
            log = self.folder / "log.jsonl"
            self.log.say(f"{len(skipped)} images could not be used; they are listed in {log}")
        self.log.say(f"written to {self.saved.checkpoints.newest}")

    def _train(self) -> None:
        while self.epoch < self.config.epochs:
            if self.step == 0 and self.learner.clustering.due(self.epoch):
                self._cluster()
            self._train_epoch()

    def _cluster(self) -> None:
        """Run the bank pass over the views last trained on, then k-means (HCL, section 4)."""
        started = time.perf_counter()
        with closing(self._kmeans_steps()) as steps:
            figures = self.learner.clustering.refresh(
                self.epoch, self._bank_samples(), after_step=lambda: next(steps)
            )
        if banks := self.learner.clustering.banks:
            self.saved.bank_files.write(self.epoch, banks)
        seconds = time.perf_counter() - started
        for side in SIDES:
            if figures[f"{side}_clusters"] < getattr(self.config.clustering, f"{side}_clusters"):
                self.log.say(
                    f"{side}: only {figures[f'{side}_clusters']} clusters, because there are no more tokens"
                )
        self.log.record(
            "clustering",
            self.global_step,
            epoch=self.epoch,
            seconds=seconds,
            reused=self.bank_pass.reuses and self.epoch > 0,
            **figures,
        )

    def _bank_samples(self) -> Iterator[tuple[BankRows, BankRows]]:
        """Yield sampled tokens by batch; a rank that is to stop skips the rest, and all agree at the end."""
        title = f"bank {self.epoch + 1}/{self.config.epochs}"
        with progress(self.world, title, "image", total=self.bank_pass.images) as bar:
            for indices, levels in self.bank_pass.levels(self.epoch):
                if self.stop:
                    break
                yield self.bank_pass.sample(self.epoch, indices, levels)
                bar.update(len(indices) * self.world.size)
        if self.world.any(bool(self.stop)):
            raise Stopped

    def _kmeans_steps(self) -> Generator[None, None, None]:
        """Advance a progress bar at each call of k-means; the bar's total is the most calls there can be."""
        most = len(SIDES) * (self.config.clustering.iterations + 2)
        title = f"k-means {self.epoch + 1}/{self.config.epochs}"
        with progress(self.world, title, "step", total=most, within=True) as bar:
            while True:
                bar.update()
                yield

    def _train_epoch(self) -> None:
        """Take the steps to the end of the epoch, then save."""
        self.losses.restart_clock()
        batch_size, interrupted = self.config.batch_size, False
        with progress(
            self.world,
            f"epoch {self.epoch + 1}/{self.config.epochs}",
            "image",
            total=self.batches.steps_per_epoch * batch_size,
            done=self.step * batch_size,
        ) as bar:
            for views in self._steps():
                outcome = self.learner.training_step(views)
                if self._bank_follows:
                    self.bank_pass.keep(self.step * self.config.accumulation, outcome.momentum_levels)
                self.step += 1
                self.losses.add(self.global_step, outcome)
                bar.update(batch_size)
                if self.step % self.config.log_every == 0:
                    bar.set_postfix(self._record_losses())
                interrupted = self._interrupted()
                if self.step < self.batches.steps_per_epoch:
                    self._pause(interrupted)
        self._record_losses()
        best = self.losses.end_epoch()
        self.epoch, self.step = self.epoch + 1, 0
        self.learner.schedule.step()
        self._save(best=best)
        if interrupted and self.epoch < self.config.epochs:
            raise Stopped

    def _pause(self, interrupted: bool) -> None:
        """Between two steps of an epoch, save if a checkpoint is due, and stop if that was asked for."""
        every = self.config.checkpoint_every
        if interrupted or (every and self.step % every == 0):
            self._save()
        if interrupted:
            raise Stopped

    @property
    def _bank_follows(self) -> bool:
        """Whether another bank pass comes after this epoch."""
        return self.epoch + 1 < self.config.epochs and self.learner.clustering.due(self.epoch + 1)

    def _steps(self) -> Iterator[list[Views]]:
        """Yield this rank's micro-batches of two views for each remaining step of the epoch."""
        stream = self.views.batches(
            self.epoch + 1, self.batches.training(self.epoch, self.step), views=(1, 2)
        )
        group: list[Views] = []
        for batch in stream:
            group.append((batch.views[0], batch.views[1]))
            if len(group) == self.config.accumulation:
                yield group
                group = []

    def _interrupted(self) -> bool:
        """Whether to stop now; several ranks agree on it only when they wait for the device anyway."""
        if self.world.size == 1:
            return bool(self.stop)
        waits = self.step % self.config.log_every == 0 or self.step == self.batches.steps_per_epoch
        return waits and self.world.any(bool(self.stop))

    def _record_losses(self) -> dict[str, float]:
        figures, failed = self.losses.take()
        if failed and self.config.on_non_finite == "stop":
            raise self._dump(failed[0])
        for step in failed:
            self.log.say(f"step {step.step} is not finite and was skipped; its images: {self._images(step)}")
        if figures:
            self.log.record("step", self.global_step, epoch=self.epoch, lr=self.learner.lr, **figures)
        return {name: round(value, 4) for name, value in figures.items()}

    def _place(self, failed: FailedStep) -> int:
        """Index of a step within the current epoch, from 0."""
        return failed.step - 1 - self.epoch * self.batches.steps_per_epoch

    def _images(self, failed: FailedStep) -> str:
        indices = self.batches.step(self.epoch, self._place(failed))
        return ", ".join(self.image_names[index] for index in indices)

    def _dump(self, failed: FailedStep) -> non_finite.NonFiniteLossError:
        """Write a file that reproduces the step; its views are generated again, with the same result."""
        parts = self.batches.training(self.epoch, self._place(failed))[: self.config.accumulation]
        batches = self.views.batches(self.epoch + 1, parts, views=(1, 2))
        images = {int(index): self.image_names[index] for part in parts for index in part}
        views = [(batch.views[0], batch.views[1]) for batch in batches]
        path = non_finite.dump(self.learner, failed, images, views, self.folder)
        return non_finite.refusal(failed, self._images(failed), path)

    def _save(self, *, best: bool = False) -> None:
        self._record_losses()
        place = {"epoch": self.epoch, "step": self.step}
        run = place | {"images": self.images, "bank_reuses": self.bank_pass.reuses}
        self.saved.save(run | self.learner.state_dict() | self.losses.state_dict(), best=best)
