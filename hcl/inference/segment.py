"""Segmentation of photographs: a map of labels and an overlay for each.

Labels are the classes of a linear classifier if one is given. Otherwise they are a few clusters, merged by
similarity from those of the checkpoint (`hcl.inference.labelling.clusters`), so that a colour means the same
in all photographs.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from hcl.bounds import require_at_least
from hcl.data.checks import OnError, check_images, listed
from hcl.data.folder import open_folder
from hcl.data.samples import Dataset, Sample
from hcl.distributed import World
from hcl.evaluation.crf import CRFConfig, refine_batches, require_crf
from hcl.figures.segments import label_map, overlay
from hcl.files import written_whole
from hcl.inference.config import InferenceConfig, open_segmenter
from hcl.inference.enlarging import labels_at
from hcl.inference.labelling import Labels, classes, clusters
from hcl.inference.reading import Read, read_ahead
from hcl.inference.segment_folder import (
    KINDS,
    Outputs,
    describe,
    outputs_of,
    refuse_foreign_pictures,
    refuse_other_settings,
    remove_pictures,
)
from hcl.inference.segmenter import Segmenter, pixels_at, together
from hcl.models.digest import digest_of_weights
from hcl.progress import progress

log = logging.getLogger(__name__)

Scored = tuple[list[Read], Sequence[Tensor] | Tensor]
"""A batch of photographs, and the scores of each."""


@dataclass(kw_only=True)
class SegmentConfig(InferenceConfig):
    """Segment photographs.

    Args:
        photographs: an image file, or a folder of images, those in its sub-folders included.
        output: folder for labels/NAME.png (pixel value i is label i, in the label's colour), for
            overlays/NAME.jpg and for segments.json, which records labels, colours and settings.
        classifier: file of a linear classifier on the head's tokens: linear_classifier.pth.tar of
            `linear-probe`, or a published one. Labels are its classes; without one they are clusters.
        class_names: names of the classifier's classes: voc, coco, coco-things, coco-stuff or scenes, or a
            text file with one name per line; by default those of the data that the head was trained on.
        clusters: number of labels, without a classifier; the checkpoint's clusters are merged to this number.
        crf: whether a dense CRF makes the labels follow the edges of the photograph.
        crf_size: maximum longer side in pixels at which the CRF works; its result is enlarged to the
            photograph.
        crf_settings: settings of that CRF.
        on_error: what to do about a file that cannot be used: "raise" checks all files first and stops,
            "skip" leaves the file out, goes on, and reports at the end how many were left out and which.
        resume: whether to leave out the photographs whose pictures exist already.
        overwrite: whether to remove the pictures in the output folder first; otherwise pictures made with
            other settings are an error.
    """

    photographs: str
    output: str = "runs/segments"
    classifier: str | None = None
    class_names: str | None = None
    clusters: int = 20
    crf: bool = False
    crf_size: int = 512
    crf_settings: CRFConfig = field(default_factory=CRFConfig)
    on_error: OnError = "raise"
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, self, "clusters")
        require_at_least(16, self, "crf_size")
        if self.resume and self.overwrite:
            raise ValueError(
                "resume keeps existing pictures and overwrite removes them: choose one of the two"
            )
        if self.class_names is not None and self.classifier is None:
            raise ValueError(
                f"class_names={self.class_names!r} names the classes of a classifier: give --classifier too"
            )


def run(config: SegmentConfig, world: World) -> None:
    """Segment the photographs, each rank its share.

    Raises:
        FileNotFoundError: a photograph, the checkpoint, weights or the classifier are missing.
        ValueError: a file or a setting is invalid, or no photograph can be used.
        ModuleNotFoundError: the requested CRF needs a package that is not installed.
    """
    if config.crf:
        require_crf(config.crf_settings, config.crf_size, world.device)
    dataset = open_photographs(config)
    segmenter = open_segmenter(config, world)
    if config.classifier is None:
        labels = clusters(segmenter, config.clusters)
    else:
        labels = classes(segmenter, config.classifier, config.class_names)
    if config.on_error == "raise":
        # Last, since it opens every file, and mistyped settings should fail at once.
        check_images(dataset, ranks=world)
    folder = Path(config.output).expanduser()
    outputs = outputs_of(dataset, folder)
    settings = {**asdict(config), "digests": _digests(segmenter, config.classifier)}
    if config.overwrite:
        refuse_foreign_pictures(folder)
    else:
        refuse_other_settings(folder, settings)
    world.barrier()
    if world.is_main:
        if config.overwrite:
            remove_pictures(folder)
        describe(folder, labels, settings, outputs)
    world.barrier()
    # Divided among the ranks before looking for existing pictures, since other ranks may be writing already.
    photographs = [*zip(dataset.samples, outputs, strict=True)][world.rank :: world.size]
    pending = [own for own in photographs if not (config.resume and own[1].exist())]
    with progress(world, f"segments of {dataset.name}", "image", total=len(pending)) as bar:
        skipped = _segment(pending, segmenter, labels, config, bar)
    _tell(skipped, len(pending), len(photographs) - len(pending), config, world)


def _digests(segmenter: Segmenter, classifier: str | None) -> dict[str, str | list[int]]:
    """Return what identifies the model, wherever its files are."""
    digests: dict[str, str | list[int]] = {
        "backbone": digest_of_weights(segmenter.model.backbone),
        "patch_sizes": list(segmenter.model.backbone.patch_sizes),
        "head": digest_of_weights(segmenter.model.head),
    }
    if classifier is not None:
        digests["classifier"] = hashlib.sha256(Path(classifier).read_bytes()).hexdigest()
    return digests


def _segment(
    pending: Sequence[tuple[Sample, Outputs]],
    segmenter: Segmenter,
    labels: Labels,
    config: SegmentConfig,
    bar: tqdm,
) -> list[str]:
    """Write the pictures of photographs; return an error message for each one that was skipped."""
    skipped: list[str] = []
    writing: list[Future[None]] = []
    paths = [sample.image for sample, _ in pending]
    with ThreadPoolExecutor(config.threads) as pool:
        photographs = read_ahead(
            paths, config.batch_size, pool, skipped if config.on_error == "skip" else None
        )
        scored = _scored(photographs, segmenter, labels)
        for batch, scores in _refined(scored, config) if config.crf else scored:
            maps = [labels_at(own, _size(read)) for read, own in zip(batch, scores, strict=True)]
            _finish(writing)
            writing = [
                pool.submit(_write, read.image, found.cpu().numpy(), labels, pending[read.place][1])
                for read, found in zip(batch, maps, strict=True)
            ]
            bar.update(len(batch))
        _finish(writing)
    return skipped


def open_photographs(config: SegmentConfig) -> Dataset:
    """List the photographs without opening them.

    Raises:
        FileNotFoundError: the folder holds no photograph.
        ValueError: the output is among the photographs, where the next run would take it for photographs, or
            the photographs are among the output.
    """
    path = Path(config.photographs).expanduser()
    output = Path(config.output).expanduser().resolve()
    if any(path.resolve().is_relative_to(output / kind) for kind in KINDS):
        raise ValueError(
            f"{config.photographs} is among the pictures of output {config.output}: choose another --output"
        )
    if not path.is_dir():
        return Dataset(path.name, [Sample(path, None, path.name)])
    if output.is_relative_to(path.resolve()):
        raise ValueError(
            f"output {config.output} lies in the folder of photographs {config.photographs}: choose another "
            "--output"
        )
    return open_folder(path)


def _scored(photographs: Iterable[list[Read]], segmenter: Segmenter, labels: Labels) -> Iterator[Scored]:
    """Yield the scores (labels, h, w) of every photograph, on the grid of its tokens."""
    for batch in photographs:
        yield batch, [labels.scores(found) for found in segmenter.batch([read.image for read in batch])]


def _refined(batches: Iterator[Scored], config: SegmentConfig) -> Iterator[Scored]:
    """Refine scores to the CRF's marginals, at a size whose longer side is at most ``crf_size``."""
    return refine_batches(_of_one_size(batches, config.crf_size), config.crf_settings)


def _of_one_size(batches: Iterator[Scored], side: int) -> Iterator[tuple[list[Read], Tensor, Tensor]]:
    """Group photographs by size for the CRF; yield each group with its logits and pictures."""
    for batch, scores in batches:
        for size, places in together([_within(*_size(read), side) for read in batch]).items():
            enlarged = [F.interpolate(scores[place][None], size, mode="bilinear") for place in places]
            pictures = torch.stack([pixels_at(batch[place].image, size) for place in places])
            logits = torch.cat(enlarged)
            yield [batch[place] for place in places], logits, pictures.to(logits.device)


def _size(read: Read) -> tuple[int, int]:
    return read.image.height, read.image.width


def _within(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(side / max(height, width), 1)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _write(image: Image.Image, found: np.ndarray, labels: Labels, outputs: Outputs) -> None:
    names = labels.names if labels.spoken else None
    # The map is written last: if it exists, so does the overlay.
    with written_whole(outputs.overlay) as file:
        overlay(image, found, labels.colours, names).save(file, format="JPEG", quality=90)
    with written_whole(outputs.labels) as file:
        label_map(found, labels.colours).save(file, format="PNG")


def _finish(writing: Sequence[Future[None]]) -> None:
    for future in writing:
        future.result()


def _tell(
    skipped: Sequence[str], tried_here: int, there_here: int, config: SegmentConfig, world: World
) -> None:
    counts = torch.tensor([len(skipped), tried_here, there_here], device=world.device)
    count, tried, there = world.all_reduce(counts).tolist()
    if tried and count == tried:
        raise ValueError(f"none of the {tried} photographs can be used:\n{listed([*skipped])}")
    if skipped:
        log.warning("left out %d of %d photographs:\n%s", len(skipped), tried, listed([*skipped]))
    if world.is_main:
        before = f" ({there} had been segmented before)" if there else ""
        print(
            f"segmented {tried - count} of {tried + there} photographs{before}: see overlays and labels in "
            f"{config.output}"
        )
