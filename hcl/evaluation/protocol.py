"""What every protocol is told, and what it opens before it begins."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from hcl.bounds import require_above_zero, require_at_least
from hcl.data.dataset import DataConfig, open_dataset
from hcl.data.samples import Dataset
from hcl.distributed import DeviceName, World
from hcl.evaluation.tokens import TokenExtractor, TokenKind, untrained_head
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.digest import digest_of_weights
from hcl.models.head_files import Branch, read_head_checkpoint
from hcl.models.recorded_backbone import BackboneOverride
from hcl.models.seg_head import SegHeadConfig
from hcl.models.trained_head import TrainedHead, trained_head
from hcl.precision import Precision
from pipelines.labelled_images import Mode
from pipelines.usable import usable


class Frame(NamedTuple):
    """How images and labels are brought to size x size pixels."""

    size: int
    mode: Mode


FRAMES = {
    "voc": Frame(448, "resize"),
    "coco": Frame(320, "shorter-crop"),
    "scenes": Frame(448, "resize"),
    "folder": Frame(448, "shorter-crop"),
}
"""The frame of each kind of data, as published for voc and coco (HCL, section 7)."""


@dataclass(kw_only=True)
class ProtocolConfig:
    """Settings that the protocols share.

    Args:
        data: the labelled images to score.
        output: folder for metrics.json and what else the protocol leaves.
        overwrite: replace a metrics.json of other settings there, which is refused otherwise.
        backbone: the frozen transformer, where it is not as the checkpoint says.
        tokens: "head" for the SegHead's component tokens, "pmvit" for the concatenated levels that it takes,
            or "backbone" for the backbone's own tokens at its own patch size.
        checkpoint: of a trained head: this program's, a published one, or a folder of Hugging Face's form;
            without it the head is untrained.
        branch: which head of the checkpoint: the moving average, "momentum", or the one that the optimiser
            trained, "online".
        heads: attention heads of the checkpoint's head, where it does not tell: published ones do not, and
            have 12.
        head: shape of an untrained head.
        size: side in pixels that images and labels are brought to; by default the published one of the
            protocol and the kind of data.
        mode: "resize" to size x size, or "shorter-crop": the shorter side to size, then the centre; by
            default as published.
        batch_size: images at a time.
        threads: of the data pipeline.
        device: where to compute; auto takes a CUDA GPU if there is one.
        precision: of the backbone and the head; bf16 pays on GPUs, and on CPUs with bf16 instructions; fp8 is
            bf16 with the backbone's linear layers in FP8, on NVIDIA GPUs of compute capability 8.9 or more.
        seed: of an untrained head, and of what the protocol draws.
        deterministic: have torch choose reproducible algorithms, slower on a GPU, where operations that have
            none are errors; a CPU computes so anyway.
        token_cache: folder in which tokens are kept, so that another protocol on the same head starts at
            once; by default "tokens" in the folder HCL_CACHE. Ranks must share it.
        token_cache_gib: how much the tokens in that folder may take together, in GiB: where new ones would
            take more, those used longest ago are deleted.
        keep_tokens: whether tokens stay there; without, they lie in the output folder until the end.
    """

    published: ClassVar[dict[str, Frame]] = FRAMES
    needs_head: ClassVar[bool] = True
    """Whether a checkpoint is of use for its head alone."""

    data: DataConfig
    output: str = "runs/evaluation"
    overwrite: bool = False
    backbone: BackboneOverride = field(default_factory=BackboneOverride)
    tokens: TokenKind = "head"
    checkpoint: str | None = None
    branch: Branch = "momentum"
    heads: int | None = None
    head: SegHeadConfig = field(default_factory=SegHeadConfig)
    size: int | None = None
    mode: Mode | None = None
    batch_size: int = 16
    threads: int = 2
    device: DeviceName = "auto"
    precision: Precision = "fp32"
    seed: int = 0
    deterministic: bool = False
    token_cache: str | None = None
    token_cache_gib: float = 100.0
    keep_tokens: bool = True

    def __post_init__(self) -> None:
        require_at_least(1, self, "size", "batch_size", "threads", "heads")
        require_at_least(0, self, "seed")
        require_above_zero(self, "token_cache_gib")
        if self.needs_head and self.checkpoint is not None and self.tokens != "head":
            raise ValueError(
                f"checkpoint {self.checkpoint} holds a head, which tokens={self.tokens!r} does without: "
                "leave out one of the two"
            )
        if not self.data.labelled:
            raise ValueError(
                f"{self.data.root} has no labels to score against; say by --data.masks and "
                "--data.mask_classes where its masks are, or choose another --data.kind"
            )

    @property
    def frame(self) -> Frame:
        """The published frame, but for what is set otherwise."""
        published = self.published[self.data.kind]
        return Frame(self.size or published.size, self.mode or published.mode)

    @cached_property
    def given_head(self) -> TrainedHead | None:
        """What is needed of the checkpoint, which is read once; None without one.

        Raises:
            FileNotFoundError, CheckpointError, ValueError: as `hcl.models.trained_head.trained_head` and
                `hcl.models.head_files.read_head_checkpoint`.
        """
        if self.checkpoint is None:
            return None
        read = read_head_checkpoint(self.checkpoint)
        return trained_head(read, self.checkpoint, self.branch, backbone=self.backbone, heads=self.heads)

    @property
    def chosen_backbone(self) -> BackboneConfig:
        """The backbone that the checkpoint and the settings come to; raises as `given_head`."""
        return self.given_head.backbone if self.given_head else self.backbone.without_checkpoint()

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of what was trained before, as it was when first asked for; raises as `given_head`."""
        return {} if self.given_head is None else {"head": digest_of_weights(self.given_head.head)}

    @property
    def token_source(self) -> str:
        """Where the tokens come from, in words."""
        backbone = self.chosen_backbone.name
        if self.tokens == "pmvit":
            return f"PM-ViT on {backbone}"
        if self.tokens == "backbone":
            return backbone
        if self.checkpoint is None:
            return f"untrained head (seed {self.seed}) on {backbone}"
        return f"{self.branch} head of {self.checkpoint} on {backbone}"


def open_labelled(config: DataConfig, world: World) -> Dataset:
    """The data set, once it is certain that every image and label is there.

    Raises:
        FileNotFoundError: the data set, an image or a label is missing.
        ValueError: the images have no labels, or a file is damaged.
    """
    return usable(_listed(config), config.on_error, labels=True, ranks=world)


def open_two_splits(config: DataConfig, train_split: str, world: World) -> tuple[Dataset, Dataset]:
    """Another split of the same data, which its labels are taken from, and the split that is scored.

    Both are there before files of either are looked into.

    Raises:
        FileNotFoundError, ValueError: as `open_labelled`.
    """
    scored = _listed(config)
    try:
        train = _listed(replace(config, split=train_split))
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"train_split is {train_split!r}: {error}: name another by --train_split") from error
    return (
        usable(train, config.on_error, labels=True, ranks=world),
        usable(scored, config.on_error, labels=True, ranks=world),
    )


def _listed(config: DataConfig) -> Dataset:
    dataset = open_dataset(config)
    if not dataset.labelled:
        raise ValueError(
            f"{dataset.name} has no labels to score against; choose a labelled data set or split"
        )
    return dataset


def open_extractor(config: ProtocolConfig, world: World) -> TokenExtractor:
    """The token extractor that the configuration describes, its weights loaded.

    Raises:
        ValueError: the head does not fit the backbone or stands on another, or patches do not tile the
            configuration's frame.
        FileNotFoundError, CheckpointError, DownloadError: weights are missing or of another model.
    """
    backbone = build_backbone(config.chosen_backbone)
    head = None
    if config.tokens == "head":
        given = config.given_head
        head = given.head if given else untrained_head(backbone, config.head, config.seed)
    extractor = TokenExtractor(backbone, config.tokens, head, device=world.device, precision=config.precision)
    extractor.grid(config.frame.size)
    return extractor


def images_of(dataset: Dataset) -> dict[str, Any]:
    """Which images were used, and which could not be; JSON-ready."""
    return {"name": dataset.name, "images": len(dataset), "skipped": list(dataset.skipped)}


def facts(
    config: ProtocolConfig,
    dataset: Dataset,
    extractor: TokenExtractor,
    *,
    label_resolution: int,
    labels_used_for: str,
    crf: str = "off",
) -> dict[str, Any]:
    """What every report says of the data, the tokens and the comparison, JSON-ready.

    Args:
        config: of the protocol.
        dataset: that is scored.
        extractor: of its tokens.
        label_resolution: side in pixels or cells at which predictions and labels are compared.
        labels_used_for: besides scoring.
        crf: its settings in words, or "off".
    """
    grid = list(extractor.grid(config.frame.size))
    return {
        "data": {**images_of(dataset), "classes": list(dataset.class_names)},
        "frame": config.frame._asdict(),
        "tokens": {
            "source": config.token_source,
            "channels": extractor.channels,
            "grid": grid,
            "backbone_digest": extractor.backbone_digest,
        },
        "label_resolution": f"{label_resolution}x{label_resolution}",
        "labels_used_for": labels_used_for,
        "crf": crf,
    }
