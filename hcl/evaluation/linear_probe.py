"""Linear classifier: one 1x1 convolution trained on frozen tokens (HCL, section 7)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from hcl.data.dataset import Dataset
from hcl.evaluation.linear_classifier import LinearClassifier
from hcl.evaluation.metrics import Scores, SegmentationScores, summary
from hcl.evaluation.protocol import ImageMode, ProtocolConfig, open_extractor, open_labelled
from hcl.randomness import generator
from pipelines.draws import ProbeConfig
from pipelines.labelled_images import EvaluationImages, LabelledBatch, ProbeViews


class Protocol(NamedTuple):
    """What differs between the kinds of data.

    Attributes:
        train_split: trained on.
        size, mode: how images and labels of the scored split are brought to size x size pixels.
        milestones: epochs from which the learning rate is a tenth of what it was.
    """

    train_split: str
    size: int
    mode: ImageMode
    milestones: tuple[int, ...]


PUBLISHED = {
    "voc": Protocol("trainaug", 448, "resize", (4,)),
    "coco": Protocol("Coco164kFull_Stuff_Coarse", 320, "shorter-crop", (1, 4)),
    "scenes": Protocol("train", 448, "resize", (4,)),
}


@dataclass(kw_only=True)
class LinearProbeConfig(ProtocolConfig):
    """Linear classifier: a 1x1 convolution trained on frozen tokens, scored on another split.

    Args:
        train_split: split to train on; by default trainaug for voc, the 49,629 images of
            Coco164kFull_Stuff_Coarse for coco.
        size: side in pixels that images and labels of the scored split are brought to; by default 448, for
            coco 320.
        mode: "resize" to size x size, or "shorter-crop": the shorter side to size, then the centre; by
            default resize, for coco shorter-crop. Training views begin with it too.
        crop_size: side in pixels of a training view.
        views: how training views are drawn.
        epochs: passes over the training split.
        lr: learning rate of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        milestones: epochs from which the learning rate is a tenth of what it was; by default [4], for coco
            [1, 4].
    """

    train_split: str | None = None
    size: int | None = None
    mode: ImageMode | None = None
    crop_size: int = 448
    views: ProbeConfig = field(default_factory=ProbeConfig)
    epochs: int = 10
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("size", "crop_size", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}; it must be above 0")
        if self.data.kind not in PUBLISHED:
            raise ValueError(
                f"data of kind {self.data.kind!r} has no labels; choose one of {', '.join(PUBLISHED)}"
            )

    @property
    def protocol(self) -> Protocol:
        """The published protocol of the data's kind, but for what is set otherwise."""
        published = PUBLISHED[self.data.kind]
        milestones = published.milestones if self.milestones is None else tuple(self.milestones)
        return Protocol(
            self.train_split or published.train_split,
            self.size or published.size,
            self.mode or published.mode,
            milestones,
        )


def run(config: LinearProbeConfig, device: torch.device) -> dict[str, Any]:
    """Train a linear classifier on the configuration's tokens, save it and score it.

    Returns:
        What `hcl.evaluation.report` takes: facts of the run, and under ``results`` its one entry.

    Raises:
        ValueError: a setting, file or label is not right.
        FileNotFoundError: data or weights are missing.
        FloatingPointError: the loss became NaN or infinite.
    """
    protocol = config.protocol
    validation = open_labelled(config.data)
    training = open_labelled(replace(config.data, split=protocol.train_split))
    extractor = open_extractor(config, device)
    extractor.grid(config.crop_size)
    grid = extractor.grid(protocol.size)
    classifier = LinearClassifier(extractor, len(training.class_names), seed=config.seed)
    losses = train(classifier, training, config)
    classifier.save(Path(config.output) / "linear_classifier.pth.tar")
    images = EvaluationImages(
        validation,
        size=protocol.size,
        mode=protocol.mode,
        batch_size=config.batch_size,
        device=device,
        threads=config.threads,
    )
    scores = score(classifier, images, validation)
    return {
        "data": {"name": validation.name, "images": len(validation), "classes": list(validation.class_names)},
        "training_data": {"name": training.name, "images": len(training)},
        "protocol_of_kind": protocol._asdict(),
        "label_resolution": f"{protocol.size}x{protocol.size}",
        "tokens": {"source": config.token_source, "channels": extractor.channels, "grid": list(grid)},
        "training_loss": losses,
        "results": [summary([scores], validation.class_names)],
    }


def train(classifier: LinearClassifier, dataset: Dataset, config: LinearProbeConfig) -> list[float]:
    """Train the classifier in place.

    Returns:
        The mean loss of each epoch.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    views = ProbeViews(
        dataset,
        config.views,
        size=config.crop_size,
        mode=config.protocol.mode,
        seed=config.seed,
        device=classifier.extractor.device,
        threads=config.threads,
    )
    optimizer = torch.optim.SGD(
        classifier.convolution.parameters(),
        config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, config.protocol.milestones, gamma=0.1)
    means = []
    for epoch in range(config.epochs):
        means.append(_train_epoch(classifier, optimizer, views, epoch, config))
        schedule.step()
    return means


def _train_epoch(
    classifier: LinearClassifier,
    optimizer: torch.optim.Optimizer,
    views: ProbeViews,
    epoch: int,
    config: LinearProbeConfig,
) -> float:
    dataset, losses = views.dataset, []
    batches = _batches(len(dataset), epoch, config.batch_size, config.seed)
    title = f"epoch {epoch + 1}/{config.epochs}"
    with tqdm(views.batches(epoch, batches), title, len(batches), unit="batch", disable=None) as bar:
        for batch in bar:
            loss = step(classifier, optimizer, batch, dataset.ignore_index)
            _refuse_non_finite(loss, epoch, batch, dataset)
            losses.append(loss)
            bar.set_postfix(loss=f"{loss:.4f}")
    return float(np.mean(losses))


def step(
    classifier: LinearClassifier, optimizer: torch.optim.Optimizer, batch: LabelledBatch, ignore_index: int
) -> float:
    """One step of SGD on one batch; returns the loss before it, the mean over the labelled pixels."""
    assert batch.labels is not None
    labels = batch.labels.long()
    summed = F.cross_entropy(classifier(batch.images), labels, ignore_index=ignore_index, reduction="sum")
    # A batch may hold ignored pixels only, of which the mean would be NaN.
    loss = summed / (labels != ignore_index).sum().clamp(min=1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def score(classifier: LinearClassifier, images: Iterable[LabelledBatch], dataset: Dataset) -> Scores:
    """The scores of the classifier's predictions on a labelled data set."""
    metric = SegmentationScores(len(dataset.class_names), ignore_index=dataset.ignore_index)
    metric.to(classifier.extractor.device)
    with tqdm(total=len(dataset), desc="score", unit="image", disable=None) as bar:
        for batch in images:
            assert batch.labels is not None
            metric.update(classifier(batch.images).argmax(dim=1), batch.labels)
            bar.update(len(batch.indices))
    return metric.compute()


def _batches(images: int, epoch: int, batch_size: int, seed: int) -> list[np.ndarray]:
    order = generator(seed, "linear probe", epoch).permutation(images)
    return [order[i : i + batch_size] for i in range(0, images, batch_size)]


def _refuse_non_finite(loss: float, epoch: int, batch: LabelledBatch, dataset: Dataset) -> None:
    if not math.isfinite(loss):
        names = ", ".join(str(dataset.samples[index].image) for index in batch.indices)
        raise FloatingPointError(
            f"the loss of the linear classifier is {loss} in epoch {epoch + 1}: lower --lr, or see whether "
            f"the tokens of these images are finite: {names}"
        )
