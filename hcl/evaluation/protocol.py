"""What every protocol is told, and what it opens before it begins."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from hcl.data.checks import check_images
from hcl.data.dataset import DataConfig, Dataset, open_dataset
from hcl.evaluation.tokens import Branch, TokenExtractor, TokenKind, open_head
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.seg_head import SegHeadConfig
from hcl.precision import Precision

ImageMode = Literal["resize", "shorter-crop"]


@dataclass(kw_only=True)
class ProtocolConfig:
    """Settings that the protocols share.

    Args:
        data: the labelled images to score.
        output: folder for metrics.json and what else the protocol leaves.
        backbone: the frozen transformer.
        tokens: "head" for the SegHead's component tokens, "pmvit" for the concatenated levels that it takes,
            or "backbone" for the backbone's own tokens at its own patch size.
        checkpoint: of a trained head, this program's or a published one; without it the head is untrained.
        branch: which head of the checkpoint: the moving average, "momentum", or the one that the optimiser
            trained, "online".
        head: shape of an untrained head; of a checkpoint's head only the number of attention heads is taken
            from here.
        batch_size: images at a time.
        threads: of the data pipeline.
        device: where to compute; auto takes a CUDA GPU if there is one.
        precision: of the backbone and the head; bf16 is for GPUs.
        seed: of an untrained head, and of what the protocol draws.
    """

    data: DataConfig
    output: str = "runs/evaluation"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    tokens: TokenKind = "head"
    checkpoint: str | None = None
    branch: Branch = "momentum"
    head: SegHeadConfig = field(default_factory=SegHeadConfig)
    batch_size: int = 16
    threads: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative")
        if self.checkpoint is not None and self.tokens != "head":
            raise ValueError(
                f"checkpoint {self.checkpoint} holds a head, which tokens={self.tokens!r} does without: "
                "leave out one of the two"
            )

    @property
    def token_source(self) -> str:
        """Where the tokens come from, in words."""
        if self.tokens == "pmvit":
            return f"PM-ViT on {self.backbone.name}"
        if self.tokens == "backbone":
            return self.backbone.name
        if self.checkpoint is None:
            return f"untrained head (seed {self.seed}) on {self.backbone.name}"
        return f"{self.branch} head of {self.checkpoint} on {self.backbone.name}"


def open_labelled(config: DataConfig) -> Dataset:
    """The data set, once it is certain that every image and label is there.

    Raises:
        FileNotFoundError: the data set, an image or a label is missing.
        ValueError: the images have no labels, or a file is damaged.
    """
    dataset = open_dataset(config)
    if not dataset.labelled:
        raise ValueError(
            f"{dataset.name} has no labels to score against; choose a labelled data set or split"
        )
    check_images(dataset, labels=True)
    return dataset


def open_extractor(config: ProtocolConfig, device: torch.device) -> TokenExtractor:
    """The token extractor that the configuration describes, its weights loaded."""
    backbone = build_backbone(config.backbone)
    head = None
    if config.tokens == "head":
        head = open_head(
            backbone, config.head, checkpoint=config.checkpoint, branch=config.branch, seed=config.seed
        )
    return TokenExtractor(backbone, config.tokens, head, device=device, precision=config.precision)
