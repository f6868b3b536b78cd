"""Needs of a run, by arithmetic: memory per rank, bytes sent, and seconds per epoch.

Everything follows from the settings and from measured unit costs; nothing is measured here.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Mode = Literal["kept", "recomputed", "online"]
MODES: tuple[Mode, ...] = ("kept", "recomputed", "online")
FLOAT = 4
# Weights, gradients and AdamW's two averages.
TRAINED_COPIES = 4
# Peak while a bank is renewed: the bank, the new rows, and one side's renewed bank; measured on one rank.
BANK_COPIES = 3.3
# `clustering.bank_images` of the online mode, whose single bank does not need more images.
ONLINE_BANK_IMAGES = 100_000


@dataclass(frozen=True)
class Shape:
    """Sizes that do not depend on the number of images or ranks.

    Attributes:
        tokens: tokens of all levels of an image, [CLS] included.
        cells: component tokens of an image.
        width: channels of a backbone token.
        channels: channels of a projected token.
        attention_heads: attention heads of the backbone.
        level_bytes: bytes per number of a kept level.
        backbone_parameters, head_parameters: parameters of the backbone and of the online branch.
        momentum_parameters: parameters of the momentum head.
        batch_size: images of an optimiser step, over all ranks; with more ranks than that, one per rank.
        clusters: clusters of both banks together.
        share: share of an image's tokens that enters the bank.
        replaced: share of the bank that an epoch replaces.
        iterations: iterations of k-means.
    """

    tokens: int
    cells: int
    width: int
    channels: int
    attention_heads: int
    level_bytes: int
    backbone_parameters: int
    head_parameters: int
    momentum_parameters: int
    batch_size: int = 64
    clusters: int = 1000
    share: float = 0.3
    replaced: float = 0.5
    iterations: int = 20


@dataclass(frozen=True)
class Costs:
    """Unit costs on one device, measured except for `link` and `memory`.

    Attributes:
        step: seconds of a training step, per image.
        head: seconds of the momentum head on kept levels, per image.
        view: seconds of backbone and momentum head on one view, per image.
        score: seconds of a k-means iteration, per row and centroid of its own bank.
        input: seconds of making both views, per image.
        input_overlaps: whether views are made while the device computes, as is possible for a GPU.
        activations: bytes that a step takes beyond weights, per image.
        link: bytes per second between ranks; assumed.
        memory: bytes of the device; assumed.
    """

    step: float
    head: float
    view: float
    score: float
    input: float
    input_overlaps: bool
    activations: float
    link: float
    memory: float


class Prediction(NamedTuple):
    """Needs of one run: bytes per rank, bytes that a rank sends per epoch, and seconds per epoch."""

    weights: float
    activations: float
    kept: float
    bank: float
    sent: float
    training: float
    bank_pass: float
    kmeans: float
    sending: float

    @property
    def memory(self) -> float:
        """Bytes per rank."""
        return self.weights + self.activations + self.kept + self.bank

    @property
    def seconds(self) -> float:
        """Seconds per epoch."""
        return self.training + self.bank_pass + self.kmeans + self.sending


def bank_rows(shape: Shape, images: int) -> float:
    """Return the rows of both banks; rounding down costs each side of an image half a token on average."""
    return images * max(shape.share * shape.cells - 1, 0)


def predict(shape: Shape, costs: Costs, images: int, ranks: int, mode: Mode) -> Prediction:
    """Predict what every rank needs for an epoch of ``images``, without time and traffic of the first bank.

    The online mode makes only that bank, from at most `ONLINE_BANK_IMAGES` images.
    """
    mine = images / ranks
    batch = max(shape.batch_size, ranks)
    banked = bank_rows(shape, min(images, ONLINE_BANK_IMAGES) if mode == "online" else images)
    renewed = 0.0 if mode == "online" else banked
    level = shape.tokens * shape.width * shape.level_bytes + shape.attention_heads * shape.cells * FLOAT
    gradient, row = shape.head_parameters * FLOAT, shape.channels * FLOAT
    others = (ranks - 1) / ranks
    of_bank = renewed / ranks * row * shape.replaced * others
    sent = 2 * others * gradient * images / batch + of_bank
    making = {"kept": costs.head, "recomputed": costs.view, "online": 0.0}[mode]
    training = max(costs.step, costs.input) if costs.input_overlaps else costs.step + costs.input
    return Prediction(
        weights=FLOAT
        * (shape.backbone_parameters + TRAINED_COPIES * shape.head_parameters + shape.momentum_parameters),
        activations=costs.activations * batch / ranks,
        kept=mine * level if mode == "kept" else 0.0,
        bank=BANK_COPIES * banked / ranks * row,
        sent=sent,
        training=mine * training,
        bank_pass=mine * making + (mine * costs.input / 2 if mode == "recomputed" else 0.0),
        kmeans=renewed / ranks * shape.clusters / 2 * shape.iterations * costs.score,
        sending=sent / costs.link if ranks > 1 else 0.0,
    )


def first_stop(costs: Costs, prediction: Prediction) -> str:
    """Name the first limit to more images or ranks: memory, or the slowest part."""
    if prediction.memory > costs.memory:
        largest = max(("bank", "kept", "activations", "weights"), key=lambda n: getattr(prediction, n))
        return f"memory: {largest} take {getattr(prediction, largest) / 2**30:,.0f} GiB a rank"
    parts = ("training", "bank_pass", "kmeans", "sending")
    slowest = max(parts, key=lambda name: getattr(prediction, name))
    share = getattr(prediction, slowest) / prediction.seconds
    return f"time: {slowest.replace('_', ' ')}, {share:.0%} of the epoch"
