"""What a protocol cannot do it says before it begins."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from hcl.commands import evaluate
from hcl.data import dataset
from hcl.data.samples import Dataset
from hcl.data.voc import open_voc
from hcl.evaluation import foreground, fully_unsupervised, overclustering, retrieval, retrieval_memory
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from kernels.crf import pydensecrf
from tests.evaluation.conftest import QUICK


@pytest.fixture
def no_tokens(monkeypatch) -> None:
    """Whoever asks for tokens fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("tokens were asked for")

    for module in (foreground, fully_unsupervised, retrieval):
        monkeypatch.setattr(module, "stored_tokens", refuse)


def only_objects(*arguments: Any) -> Dataset:
    """The scenes as a data set whose classes are things alone, as COCO-Stuff may be opened."""
    scenes = open_voc(*arguments)
    return replace(scenes, object_classes=tuple(range(len(scenes.class_names))))


@pytest.mark.parametrize("protocol", ["foreground", "fully-unsupervised"])
def test_classes_that_are_all_objects_are_refused_before_any_token(
    command, capsys, monkeypatch, no_tokens, protocol
):
    monkeypatch.setattr(dataset, "open_voc", only_objects)
    assert evaluate.main([protocol, *command, *QUICK[protocol]]) == 2
    error = capsys.readouterr().err
    assert "every class of scenes-val is an object" in error
    assert "use voc, scenes, a folder with masks, or coco with all classes" in error


def test_more_clusters_than_tokens_are_refused_before_any_token(command, capsys, no_tokens):
    settings = [*QUICK["fully-unsupervised"], "--extraction_clusters", "113"]
    assert evaluate.main(["fully-unsupervised", *command, *settings]) == 2
    expected = (
        "113 clusters are too many for the 112 tokens of scenes-train and scenes-val at this size: lower "
    )
    assert f"{expected}--extraction_clusters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "memory"), [(["--memory_size", "29"], 29), (["--neighbours", "65"], 64)], ids=str
)
def test_more_neighbours_than_the_memory_may_hold_are_refused_before_any_token(
    command, capsys, no_tokens, settings, memory
):
    assert evaluate.main(["retrieval", *command, *settings]) == 2
    assert f"neighbours in a memory of {memory} tokens: choose 1 to {memory}" in capsys.readouterr().err


def test_a_memory_that_does_not_fit_is_refused_before_any_token(command, capsys, monkeypatch, no_tokens):
    monkeypatch.setattr(retrieval_memory, "free_memory", lambda device: 64 * (24 * 2 + 6 * 4) - 1)
    assert evaluate.main(["retrieval", *command]) == 2
    assert "the memory would take 0.0 GiB on every rank, but only 0.0 GiB are free" in capsys.readouterr().err


def test_infomap_is_missed_before_any_token(command, capsys, monkeypatch, no_tokens):
    monkeypatch.setitem(sys.modules, "infomap", None)
    assert evaluate.main(["fully-unsupervised", *command, *QUICK["fully-unsupervised"]]) == 2
    assert "community detection needs the package infomap: pip install" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["linear-probe", "retrieval", "fully-unsupervised"])
def test_a_train_split_that_is_not_there_is_told_before_any_image_is_looked_into(
    command, scenes, tmp_path, capsys, monkeypatch, protocol
):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("images were looked into")

    monkeypatch.setattr("hcl.evaluation.protocol.usable", refuse)
    masks = ["--data.masks", str(scenes / "SegmentationClass"), "--data.mask_classes", "6"]
    own = ["--data.kind", "folder", "--data.root", str(scenes / "JPEGImages"), "--data.split", "", *masks]
    for data, split, missing in (
        (own, "train", f"there is no folder {scenes}/JPEGImages/train"),
        (
            ["--train_split", "trained"],
            "trained",
            f"there is no split {scenes}/ImageSets/Segmentation/trained.txt",
        ),
    ):
        assert evaluate.main([protocol, *command, *QUICK[protocol], *data]) == 2
        error = capsys.readouterr().err
        assert f"train_split is {split!r}: {missing}" in error
        assert error.endswith(": choose another --train_split\n")


@pytest.mark.parametrize(
    ("setting", "value", "bound"),
    [
        ("iterations", "-1", "-1; it must not be negative"),
        ("gaussian_compat", "-1", "-1.0; it must not be negative"),
        ("bilateral_sxy", "0", "0.0; it must be above 0"),
        ("workers", "0", "0; it must be at least 1"),
    ],
)
def test_settings_of_a_crf_are_refused_at_once(command, capsys, setting, value, bound):
    assert evaluate.main(["linear-probe", *command, f"--crf_settings.{setting}", value]) == 2
    assert f"{setting} is {bound}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "impl='pydensecrf' needs that library: pip install '.[evaluation]'"),
        (["--crf_settings.impl", "torch", "--size", "112"], "takes up to 10000 of them, got 112x112"),
    ],
)
@pytest.mark.parametrize("protocol", ["linear-probe", "linear"])
def test_a_crf_that_cannot_run_is_told_before_any_work(
    command, tmp_path, capsys, monkeypatch, protocol, settings, message
):
    monkeypatch.setattr(pydensecrf, "find_spec", lambda name: None)
    given = tmp_path / "classifier.pth.tar"
    save_classifier(untrained_classifier(24, 6, seed=0), given)
    own = {"linear": ["--classifier", str(given)], "linear-probe": QUICK["linear-probe"]}
    assert evaluate.main([protocol, *command, *own[protocol], "--crf", *settings]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_number_of_clusters_is_looked_at_before_any_token(command, capsys, monkeypatch):
    monkeypatch.setattr(overclustering, "stored_tokens", lambda *_: pytest.fail("tokens were asked for"))
    assert evaluate.main(["overcluster", *command, *QUICK["overcluster"], "--clusters", "[6, 49]"]) == 2
    assert "49 clusters" in capsys.readouterr().err
