"""Linear classifier: one 1x1 convolution trained on frozen tokens (HCL, section 7)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcl.bounds import require_above_zero, require_at_least
from hcl.data.samples import Dataset
from hcl.distributed import World
from hcl.evaluation.crf import require_crf
from hcl.evaluation.linear import LinearScoringConfig, report
from hcl.evaluation.linear_classifier import logits_of, save_classifier, untrained_classifier
from hcl.evaluation.protocol import images_of, open_extractor, open_two_splits
from hcl.evaluation.tokens import TokenExtractor
from hcl.progress import progress
from hcl.randomness import generator
from pipelines.draws import ProbeConfig
from pipelines.labelled_images import LabelledBatch, ProbeViews

T = TypeVar("T")


class Schedule(NamedTuple):
    """The split to train on, and the numbers of epochs after which the learning rate is divided by ten."""

    train_split: str
    milestones: tuple[int, ...]


SCHEDULES = {
    "voc": Schedule("trainaug", (4,)),
    "coco": Schedule("Coco164kFull_Stuff_Coarse", (1, 4)),
    "scenes": Schedule("train", (4,)),
    "folder": Schedule("train", (4,)),
}


@dataclass(kw_only=True)
class LinearProbeConfig(LinearScoringConfig):
    """Linear classifier: a 1x1 convolution trained on frozen tokens, scored on another split.

    Args:
        train_split: split to train on; by default trainaug for voc, the 49,629 images of
            Coco164kFull_Stuff_Coarse for coco, train for others.
        crop_size: side in pixels of a training view; by default the side of a scored image.
        views: how training views are drawn.
        epochs: passes over the training split.
        lr: learning rate of SGD.
        momentum: momentum of SGD.
        weight_decay: weight decay of SGD.
        milestones: numbers of epochs after which the learning rate is divided by ten; by default [4], for
            coco [1, 4].
    """

    train_split: str | None = None
    crop_size: int | None = None
    views: ProbeConfig = field(default_factory=ProbeConfig)
    epochs: int = 10
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "crop_size", "epochs")
        require_above_zero(self, "lr")

    @property
    def schedule(self) -> Schedule:
        """The published schedule of the kind of data, overridden by ``train_split`` and ``milestones``."""
        published = SCHEDULES[self.data.kind]
        milestones = published.milestones if self.milestones is None else tuple(self.milestones)
        return Schedule(self.train_split or published.train_split, milestones)

    @property
    def view_size(self) -> int:
        """Side in pixels of a training view."""
        return self.crop_size or self.frame.size


class Probe(NamedTuple):
    """The classifier, and what its training needs."""

    classifier: nn.Conv2d
    extractor: TokenExtractor
    optimizer: torch.optim.Optimizer
    world: World


def run(config: LinearProbeConfig, world: World) -> dict[str, Any]:
    """Train a linear classifier on the configuration's tokens, save it and score it.

    Returns:
        The input of `hcl.evaluation.report`: facts of the run, and under ``results`` an entry without a CRF
        and, if requested, one with it.

    Raises:
        ValueError: a setting, file or label is invalid.
        FileNotFoundError: data or weights are missing.
        FloatingPointError: the loss became NaN or infinite.
        ModuleNotFoundError: the requested CRF needs a package that is not installed.
    """
    if config.crf:
        require_crf(config.crf_settings, config.frame.size, world.device)
    training, validation = open_two_splits(config.data, config.schedule.train_split, world)
    extractor = open_extractor(config, world)
    extractor.grid(config.view_size)
    classifier = untrained_classifier(extractor.channels, len(training.class_names), seed=config.seed)
    classifier.to(world.device)
    losses = train(classifier, extractor, training, config, world)
    path = Path(config.output) / "linear_classifier.pth.tar"
    if world.is_main:
        save_classifier(classifier, path)
    use = f"training the classifier, on {training.name}"
    return {
        **report(classifier, extractor, validation, config, world, labels_used_for=use),
        "classifier": str(path),
        "training_data": images_of(training),
        "training": {"milestones": list(config.schedule.milestones), "view_size": config.view_size},
        "training_loss": losses,
    }


def train(
    classifier: nn.Conv2d,
    extractor: TokenExtractor,
    dataset: Dataset,
    config: LinearProbeConfig,
    world: World,
) -> list[float]:
    """Train the classifier in place, each rank on its share of every batch.

    Returns:
        The mean loss of each epoch.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    views = ProbeViews(
        dataset,
        config.views,
        size=config.view_size,
        mode=config.frame.mode,
        seed=config.seed,
        device=world.device,
        threads=config.threads,
    )
    optimizer = torch.optim.SGD(
        classifier.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, config.schedule.milestones, gamma=0.1)
    probe = Probe(classifier, extractor, optimizer, world)
    means = []
    for epoch in range(config.epochs):
        means.append(_train_epoch(probe, views, epoch, config))
        schedule.step()
    return means


def _train_epoch(probe: Probe, views: ProbeViews, epoch: int, config: LinearProbeConfig) -> float:
    dataset, losses = views.dataset, []
    batches = _batches(len(dataset), epoch, config.batch_size, config.seed)
    mine = [batch[probe.world.slice(len(batch))] for batch in batches]
    stream = views.batches(epoch, [part for part in mine if len(part)])
    steps = (
        (step(probe, next(stream) if len(part) else None, dataset.ignore_index), whole)
        for part, whole in zip(mine, batches, strict=True)
    )
    title = f"epoch {epoch + 1}/{config.epochs}"
    with progress(probe.world, title, "batch", total=len(batches)) as bar:
        for on_device, whole in _after_the_next(steps):
            loss = on_device.item()
            _refuse_non_finite(loss, epoch, whole, dataset)
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}")
    _finish(stream)
    return float(np.mean(losses))


def _after_the_next(steps: Iterator[T]) -> Iterator[T]:
    """Yield each step after the next one is queued, so that reading its loss does not idle the device."""
    current = next(steps)
    for following in steps:
        yield current
        current = following
    yield current


def step(probe: Probe, batch: LabelledBatch | None, ignore_index: int) -> Tensor:
    """Take one step of SGD on a batch that is divided among the ranks.

    Args:
        probe: classifier, extractor and optimiser.
        batch: this rank's part of the batch; None if it has none.
        ignore_index: label of pixels that do not count.

    Returns:
        The loss before the step, averaged over the labelled pixels of all ranks; 0-d float64. The host does
        not wait for it.
    """
    probe.optimizer.zero_grad(set_to_none=True)
    summed, pixels = _backward(probe, batch, ignore_index)
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in probe.classifier.parameters()]
    message = torch.cat(
        [summed[None], pixels[None], *(gradient.flatten().double() for gradient in gradients)]
    )
    message = probe.world.all_reduce(message)
    summed, pixels = message[:2].unbind()
    # If all pixels of a batch are ignored, the mean would be NaN.
    mean = message[2:] / pixels.clamp(min=1)
    sizes = [gradient.numel() for gradient in gradients]
    for parameter, part in zip(probe.classifier.parameters(), mean.split(sizes), strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)
    probe.optimizer.step()
    return summed / pixels.clamp(min=1)


def _backward(probe: Probe, batch: LabelledBatch | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return this rank's summed loss and labelled pixels, float64; the classifier gets the sum's gradient."""
    if batch is None:
        nothing = torch.zeros((), dtype=torch.float64, device=probe.world.device)
        return nothing, nothing
    assert batch.labels is not None
    labels = batch.labels.long()
    size = labels.shape[-1]
    # Tensors of inference mode cannot be saved for backward; a copy made outside of it can.
    tokens = probe.extractor(batch.images).tokens.clone()
    logits = logits_of(probe.classifier, tokens, probe.extractor.grid(size), size)
    # Summed separately, since the sum inside cross_entropy is not reproducible on a GPU.
    losses = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
    summed = losses.sum(dtype=torch.float64)
    summed.backward()
    return summed.detach(), (labels != ignore_index).sum().double()


def _finish(stream: Iterator[LabelledBatch]) -> None:
    """Exhaust the pipeline, so that the next epoch need not build it again."""
    assert next(stream, None) is None


def _batches(images: int, epoch: int, batch_size: int, seed: int) -> list[np.ndarray]:
    order = generator(seed, "linear probe", epoch).permutation(images)
    return [order[i : i + batch_size] for i in range(0, images, batch_size)]


def _refuse_non_finite(loss: float, epoch: int, indices: np.ndarray, dataset: Dataset) -> None:
    if not math.isfinite(loss):
        names = ", ".join(str(dataset.samples[index].image) for index in indices)
        raise FloatingPointError(
            f"the loss of the linear classifier is {loss} in epoch {epoch + 1}: lower --lr, or check "
            f"that the tokens of these images are finite: {names}"
        )
