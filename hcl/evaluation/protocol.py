"""Settings that all protocols share, and what they open before they begin."""

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
    """How images and labels are resized and cropped to size x size pixels."""

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
        output: folder for metrics.json and the protocol's other files.
        overwrite: whether to replace a metrics.json of other settings in that folder; by default, such a file
            is an error.
        backbone: the frozen transformer, where it differs from what the checkpoint records.
        tokens: kind of tokens: "head" for the SegHead's component tokens, "pmvit" for its input, the
            concatenated levels, or "backbone" for the backbone's own tokens at its own patch size.
        checkpoint: checkpoint of a trained head: of this program, a published one, or a folder in Hugging
            Face's format; without it the head is untrained.
        branch: which head of the checkpoint: "momentum" is the moving average, "online" the one that the
            optimiser trained.
        heads: number of attention heads of the checkpoint's head, if the checkpoint does not record it:
            published ones do not, and have 12.
        head: shape of an untrained head.
        size: side in pixels to which images and labels are resized; by default as published for the protocol
            and the kind of data.
        mode: how to resize: "resize" to size x size, or "shorter-crop": the shorter side to size, then crop
            the centre; by default as published.
        batch_size: images per batch.
        threads: number of threads of the data pipeline.
        device: device to compute on; auto takes a CUDA GPU if there is one.
        precision: precision of the backbone and the head; bf16 is worthwhile on GPUs, and on CPUs with bf16
            instructions; fp8 is bf16 with the backbone's linear layers in FP8, on NVIDIA GPUs of compute
            capability 8.9 or more.
        seed: seed of an untrained head and of the protocol's random draws.
        deterministic: whether torch must use reproducible algorithms, which are slower on a GPU; an operation
            without one is then an error. A CPU computes reproducibly anyway.
        token_cache: folder in which tokens are cached, so that another protocol on the same head need not
            compute them again; by default "tokens" in the folder HCL_CACHE. All ranks must share it.
        token_cache_gib: size limit in GiB of all tokens in that folder: when new ones would exceed it, the
            least recently used ones are deleted.
        keep_tokens: whether to keep tokens in that folder; otherwise they are stored in the output folder and
            deleted at the end.
    """

    published: ClassVar[dict[str, Frame]] = FRAMES
    needs_head: ClassVar[bool] = True
    """Whether a checkpoint is useful only for its head."""

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
                f"checkpoint {self.checkpoint} holds a head, which tokens={self.tokens!r} does not use: "
                "leave out --checkpoint or --tokens"
            )
        if not self.data.labelled:
            raise ValueError(
                f"{self.data.root} has no labels to score against: give its masks with --data.masks and "
                "--data.mask_classes, or choose another --data.kind"
            )

    @property
    def frame(self) -> Frame:
        """The published frame, overridden by ``size`` and ``mode`` where they are set."""
        published = self.published[self.data.kind]
        return Frame(self.size or published.size, self.mode or published.mode)

    @cached_property
    def given_head(self) -> TrainedHead | None:
        """The trained head of the checkpoint, which is read once; None without a checkpoint.

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
        """The backbone according to the checkpoint and the settings; raises as `given_head`."""
        return self.given_head.backbone if self.given_head else self.backbone.without_checkpoint()

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the trained weights, computed at the first access; raises as `given_head`."""
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
    """Open the data set and check that every image and label is there.

    Raises:
        FileNotFoundError: the data set, an image or a label is missing.
        ValueError: the images have no labels, or a file is damaged.
    """
    return usable(_listed(config), config.on_error, labels=True, ranks=world)


def open_two_splits(config: DataConfig, train_split: str, world: World) -> tuple[Dataset, Dataset]:
    """Open the split ``train_split`` of the same data, whose labels may be used, and the scored split.

    Both splits are listed before the files of either are checked.

    Raises:
        FileNotFoundError, ValueError: as `open_labelled`.
    """
    scored = _listed(config)
    try:
        train = _listed(replace(config, split=train_split))
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"train_split is {train_split!r}: {error}: choose another --train_split") from error
    return (
        usable(train, config.on_error, labels=True, ranks=world),
        usable(scored, config.on_error, labels=True, ranks=world),
    )


def _listed(config: DataConfig) -> Dataset:
    dataset = open_dataset(config)
    if not dataset.labelled:
        raise ValueError(
            f"{dataset.name} has no labels to score against: choose a labelled data set or split"
        )
    return dataset


def open_extractor(config: ProtocolConfig, world: World) -> TokenExtractor:
    """Build the token extractor that the configuration describes, and load its weights.

    Raises:
        ValueError: the head does not fit the backbone or was trained on another one, or patches do not tile
            the configuration's frame.
        FileNotFoundError, CheckpointError, DownloadError: weights are missing or belong to another model.
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
    """Describe which images were used and which were skipped, JSON-ready."""
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
    """Return the facts about data, tokens and comparison that every report holds, JSON-ready.

    Args:
        config: settings of the protocol.
        dataset: data set that is scored.
        extractor: extractor of its tokens.
        label_resolution: side in pixels or cells at which predictions and labels are compared.
        labels_used_for: what labels are used for in addition to scoring, in words.
        crf: settings of the CRF in words, or "off".
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
