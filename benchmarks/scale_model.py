"""What a run needs, by arithmetic: memory of a rank, bytes that travel, and seconds of an epoch.

Everything follows from the settings and from unit costs that someone has measured; nothing is measured here.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Mode = Literal["kept", "recomputed", "online"]
MODES: tuple[Mode, ...] = ("kept", "recomputed", "online")
FLOAT = 4
# Weights, gradients and AdamW's two averages.
TRAINED_COPIES = 4
# While a bank is renewed: itself, the new rows, and one side's renewed bank; measured on one rank.
BANK_COPIES = 3.3
# `clustering.bank_images` of the online mode, whose one bank need not look at more.
ONLINE_BANK_IMAGES = 100_000


@dataclass(frozen=True)
class Shape:
    """What does not depend on the number of images or ranks.

    Attributes:
        tokens: of all levels of an image, [CLS] included.
        cells: component tokens of an image.
        width: channels of a backbone token.
        channels: of a projected token.
        attention_heads: of the backbone.
        level_bytes: of a number of a kept level.
        backbone_parameters, head_parameters: of the backbone; of the online branch.
        momentum_parameters: of the momentum head.
        batch_size: of an optimiser step, over all ranks, where there are no more ranks than that.
        clusters: of both banks together.
        share: of an image's tokens that enters the bank.
        replaced: share of the bank that an epoch replaces.
        iterations: of k-means.
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
    """Measured on one device.

    Attributes:
        step: seconds of a training step, an image.
        head: of the momentum head on kept levels, an image.
        view: of backbone and momentum head on one view, an image.
        score: of k-means, a row and centroid of its own bank.
        input: of making both views of an image.
        input_overlaps: whether views are made while the device computes, as a GPU's can be.
        activations: bytes that a step takes beyond weights, an image.
        link: bytes a second between ranks; assumed, unlike the rest.
        memory: bytes of the device.
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
    """Of one run: bytes a rank, bytes that a rank sends in an epoch, and seconds of an epoch."""

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
        """Bytes a rank."""
        return self.weights + self.activations + self.kept + self.bank

    @property
    def seconds(self) -> float:
        """Of an epoch."""
        return self.training + self.bank_pass + self.kmeans + self.sending


def bank_rows(shape: Shape, images: int) -> float:
    """Rows of both banks; rounding down takes half a token from either side of an image."""
    return images * max(shape.share * shape.cells - 1, 0)


def predict(shape: Shape, costs: Costs, images: int, ranks: int, mode: Mode) -> Prediction:
    """What every rank needs for an epoch of ``images``; time and traffic of the first bank aside.

    The online mode makes that bank alone, from `ONLINE_BANK_IMAGES` at most.
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
    """What stands in the way first, as more images or ranks come."""
    if prediction.memory > costs.memory:
        largest = max(("bank", "kept", "activations", "weights"), key=lambda n: getattr(prediction, n))
        return f"memory: {largest} take {getattr(prediction, largest) / 2**30:,.0f} GiB a rank"
    parts = ("training", "bank_pass", "kmeans", "sending")
    slowest = max(parts, key=lambda name: getattr(prediction, name))
    share = getattr(prediction, slowest) / prediction.seconds
    return f"time: {slowest.replace('_', ' ')}, {share:.0%} of the epoch"
