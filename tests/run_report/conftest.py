"""A small run with a log, a checkpoint and the report of a protocol."""

import json
import shutil
from pathlib import Path

import pytest

from hcl.commands import evaluate
from tests.inference.conftest import checkpoint, photographs, scenes  # noqa: F401

LOG = [
    {"kind": "clustering", "step": 0, "seconds": 1.5}
    | {f"{bank}_{name}": 0.5 for bank in ("foreground", "background") for name in ("rows", "inertia")},
    *(
        {"kind": "step", "step": step, "images_per_second": 9.0}
        | dict.fromkeys(("loss", "loss_fg", "loss_bg", "loss_prediction"), 30.0 / step)
        for step in (10, 20)
    ),
]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, checkpoint, scenes) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("runs") / "finished"
    folder.mkdir()
    shutil.copy(checkpoint, folder)
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in LOG))
    arguments = [
        *("cluster", "--data.kind=scenes", f"--data.root={scenes}", "--data.split=val"),
        *("--backbone.name=tiny", f"--checkpoint={checkpoint}", f"--output={folder / 'cluster'}"),
        *("--size=64", "--label_resolution=16", "--seeds=2", "--restarts=1", "--iterations=5"),
        *("--device=cpu", "--keep_tokens=false"),
    ]
    assert evaluate.main(arguments) == 0
    return folder


@pytest.fixture(scope="session")
def pictures(scenes) -> list[str]:  # noqa: F811
    """The arguments that ask for pictures, of a run of a second."""
    return [
        *("--data.kind=scenes", f"--data.root={scenes}", "--data.split=val"),
        *("--size=64", "--components=5", "--shown=3", "--device=cpu"),
    ]


@pytest.fixture(scope="session")
def page(tmp_path_factory, finished, pictures) -> Path:
    """The page of the run, with pictures, in a folder of its own."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert evaluate.main(["report", str(finished), "--output", str(path), *pictures]) == 0
    return path
