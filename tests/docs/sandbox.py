"""What stands in for data sets, backbones and heads where commands of the documentation are run."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hcl.commands import train
from hcl.data.coco import CLASS_NAMES as COCO_CLASSES
from hcl.data.scenes import CLASS_NAMES as SCENE_CLASSES
from hcl.data.scenes import write_scenes
from hcl.data.voc import CLASS_NAMES as VOC_CLASSES
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from tests.engine.support import arguments, tiny_run
from tests.evaluation.conftest import QUICK

CLASSES = {"voc": len(VOC_CLASSES), "coco": len(COCO_CLASSES), "scenes": len(SCENE_CLASSES)}
SMALL_TRAINING = ["--epochs=1", "--batch_size=4", "--views.size=64", "--device=cpu"]
SMALL_HEAD = ["--head.width=24", "--head.hidden=16", "--head.projection_dim=8", "--head.heads=2"]
SMALL_CLUSTERING = ["--clustering.foreground_clusters=4", "--clustering.background_clusters=4"]
SMALL = {
    **QUICK,
    "overcluster": [*QUICK["overcluster"], "--clusters=6"],
    "segment": ["--clusters=3"],
    "components": ["--queries=2", "--matches=2"],
    "report": ["--images=2", "--components=3"],
}
"""Settings with which a subcommand takes a second."""


class Sandbox(NamedTuple):
    """A folder with a small data set of every kind, in the real layouts, and a trained head."""

    folder: Path

    @classmethod
    def made_in(cls, folder: Path) -> "Sandbox":
        """Write the data sets, and train on one of them."""
        sandbox = cls(folder)
        write_scenes(sandbox.root("scenes"), train=6, val=3, size=64, seed=1)
        _as_voc(sandbox.root("scenes"), sandbox.root("voc"))
        _as_coco(sandbox.root("scenes"), sandbox.root("coco"))
        shutil.copytree(sandbox.root("scenes") / "JPEGImages", sandbox.root("folder"))
        settings = tiny_run(sandbox.root("scenes"), sandbox.run) | {
            "epochs": 1,
            "clustering.foreground_clusters": 12,
            "clustering.background_clusters": 12,
        }
        assert train.main(arguments(settings)) == 0
        for kind, classes in CLASSES.items():
            save_classifier(untrained_classifier(24, classes, seed=0), sandbox.classifier(kind))
        return sandbox

    @property
    def run(self) -> Path:
        """Output folder of the training."""
        return self.folder / "run"

    def root(self, kind: str) -> Path:
        """Root of the data set of a kind."""
        return self.folder / kind

    def classifier(self, kind: str) -> Path:
        """A linear classifier for the trained head and the classes of a kind."""
        return self.folder / f"{kind}.pth.tar"

    def furnish(self, folder: Path) -> None:
        """Put what the documentation's Python speaks of into a folder: photographs, and a finished run."""
        shutil.copytree(self.root("folder"), folder / "photographs")
        shutil.copy(next((folder / "photographs").iterdir()), folder / "photographs" / "example.jpg")
        shutil.copy(folder / "photographs" / "example.jpg", folder / "photo.jpg")
        (folder / "runs").mkdir()
        for name in ("folder", "voc_vits16"):
            (folder / "runs" / name).symlink_to(self.run)


def in_small(
    words: list[str], example: tuple[str, ...], settings: Any, sandbox: Sandbox, folder: Path
) -> list[str]:
    """A command's arguments with data, weights, sizes and output that let it run here in a second.

    Args:
        words: the arguments, subcommands first.
        example: the program and its subcommands.
        settings: what the program's parser makes of the arguments.
        sandbox: where data and a trained head are.
        folder: for the output, as the folder "out" in it.
    """
    for name in example[1:]:
        settings = settings[name]
    output = folder / "out"
    if example[-1] == "report":
        output = output / "page.html"
    changes = [f"--output={output}", "--device=cpu", "--backbone.name=tiny", "--backbone.weights=null"]
    kind = "scenes"
    if settings.get("data") is not None:
        kind = settings["data"].kind
        changes.append(f"--data.root={sandbox.root(kind)}")
    if "precision" in settings:
        changes.append("--precision=fp32")
    if "head" in settings:
        changes += SMALL_HEAD
    if example[0] == "train.py":
        return [*words, *changes, *SMALL_TRAINING, *SMALL_CLUSTERING]
    if settings.get("checkpoint") is not None:
        changes.append(f"--checkpoint={sandbox.run / 'checkpoint.pt'}")
    if settings.get("classifier") is not None:
        changes.append(f"--classifier={sandbox.classifier(kind)}")
    places = {settings.get("photographs"): sandbox.root("folder"), settings.get("run"): sandbox.run}
    words = [str(places.get(word, word)) for word in words]
    return [*words, *changes, "--size=64", "--batch_size=2", *SMALL.get(example[-1], [])]


def _as_voc(scenes: Path, root: Path) -> None:
    shutil.copytree(scenes, root)
    shutil.copytree(root / "SegmentationClass", root / "SegmentationClassAug")
    lists = root / "ImageSets" / "Segmentation"
    shutil.copy(lists / "train.txt", lists / "trainaug.txt")


def _as_coco(scenes: Path, root: Path) -> None:
    for split, folder, name in (
        ("train", "train2017", "Coco164kFull_Stuff_Coarse"),
        ("val", "val2017", "Coco164kFull_Stuff_Coarse_7"),
    ):
        names = (scenes / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        masks = root / "stuffthingmaps_trainval2017" / folder
        masks.mkdir(parents=True)
        (root / folder).mkdir()
        for image in names:
            number = image.rsplit("_", 1)[-1]
            shutil.copy(scenes / "JPEGImages" / f"{image}.jpg", root / folder / f"{number}.jpg")
            with Image.open(scenes / "SegmentationClass" / f"{image}.png") as mask:
                Image.fromarray(np.asarray(mask)).save(masks / f"{number}.png")
        # COCO's names are numbers; what stands before an underscore in a list is not part of them.
        (root / f"{name}.txt").write_text("\n".join(names) + "\n")
