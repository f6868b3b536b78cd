"""``evaluate.py report``: a run as one page of HTML."""

from dataclasses import dataclass, field
from pathlib import Path

from hcl.bounds import require_at_least
from hcl.data.dataset import DataConfig, open_dataset
from hcl.distributed import DeviceName, World
from hcl.evaluation.protocol import FRAMES, Frame
from hcl.evaluation.tokens import TokenExtractor
from hcl.inference.trained_model import open_trained
from hcl.models.recorded_backbone import BackboneOverride
from hcl.run_report.evaluations import find_evaluations, read_evaluation
from hcl.run_report.looked_at import look
from hcl.run_report.page import render, write_page
from hcl.run_report.pictures import Pictures, draw_pictures
from hcl.run_report.run_files import RunRecord, read_run
from pipelines.usable import usable


@dataclass(kw_only=True)
class ReportConfig:
    """A run as one self-contained HTML page.

    Args:
        run: folder of a training run, with log.jsonl and checkpoint.pt; every metrics.json in it is shown.
        evaluations: more metrics.json files, or folders that contain some.
        output: file to write; by default report.html in the run's folder.
        data: images for the pictures (--data.kind, --data.root, --data.split); without data there are no
            pictures.
        backbone: settings of the backbone that the checkpoint lacks, or that differ from it.
        classifier: file of a linear classifier by whose predictions the worst images are found; by default
            the components predict, each assigned the class in which it is most precise.
        images: number of images of the data to run the model on, spread evenly over the split.
        shown: number of images of each kind, and of components, to show.
        components: number of clusters of the tokens of these images.
        size: side in pixels to which images are resized; by default as published for the kind of data.
        batch_size: images per batch.
        threads: number of threads of the data pipeline.
        device: device to compute on; auto takes a CUDA GPU if there is one.
        seed: seed of k-means.
    """

    run: str
    evaluations: list[str] = field(default_factory=list)
    output: str | None = None
    data: DataConfig | None = None
    backbone: BackboneOverride = field(default_factory=BackboneOverride)
    classifier: str | None = None
    images: int = 64
    shown: int = 12
    components: int = 40
    size: int | None = None
    batch_size: int = 8
    threads: int = 2
    device: DeviceName = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, self, "images", "shown", "components", "size", "batch_size", "threads")
        require_at_least(0, self, "seed")
        if self.classifier is not None and self.data is None:
            raise ValueError(f"classifier {self.classifier} needs images to predict: give --data too")

    @property
    def page(self) -> Path:
        """The file to write."""
        return Path(self.output) if self.output else Path(self.run) / "report.html"

    def frame(self, kind: str) -> Frame:
        """Return how images of a kind of data are resized."""
        published = FRAMES[kind]
        return published._replace(size=self.size or published.size)


def run(config: ReportConfig, world: World) -> None:
    """Write the page and print its path; only the main rank does so.

    Raises:
        FileNotFoundError: the run, an evaluation, data or weights are missing.
        ValueError: a file is damaged or does not fit the others, or there is nothing to show.
    """
    if not world.is_main:
        return
    record = read_run(Path(config.run))
    paths = find_evaluations([record.folder, *map(Path, config.evaluations)])
    if not (record.records or record.checkpoint or paths):
        raise ValueError(
            f"{config.run} holds no log.jsonl, no checkpoint and no metrics.json: there is nothing to show"
        )
    evaluations = [read_evaluation(path) for path in paths]
    pictures = _pictures(config, config.data, record, world) if config.data else None
    output = config.page
    write_page(render(record, evaluations, pictures), output)
    print(f"written to {output} ({output.stat().st_size / 2**20:.1f} MiB)")


def _pictures(config: ReportConfig, data: DataConfig, record: RunRecord, world: World) -> Pictures:
    if record.checkpoint is None:
        raise ValueError(
            f"{config.run} holds no checkpoint, which is needed for pictures of the images in {data.root}"
        )
    dataset = open_dataset(data).spread_out(config.images)
    dataset = usable(dataset, data.on_error, labels=dataset.labelled)
    own = config.backbone
    model = open_trained(
        record.checkpoint, backbone=own.name, weights=own.weights, patch_sizes=own.patch_sizes
    )
    extractor = TokenExtractor(model.backbone, "head", model.head, device=world.device)
    looked_at = look(
        dataset, extractor, config.frame(data.kind), batch_size=config.batch_size, threads=config.threads
    )
    return draw_pictures(
        looked_at,
        keep_mass=model.keep_mass,
        clusters=config.components,
        shown=config.shown,
        classifier=config.classifier,
        seed=config.seed,
    )
