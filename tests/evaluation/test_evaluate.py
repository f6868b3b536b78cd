"""The command line: both protocols from images to metrics.json, presets, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import evaluate
from hcl.data.scenes import CLASS_NAMES
from hcl.evaluation.tokens import untrained_head
from hcl.models.seg_head import SegHeadConfig
from hcl.models.weights import load_linear_classifier

OVERCLUSTER = ("--label_resolution", "16", "--seeds", "2", "--restarts", "1", "--iterations", "5")


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_overclustering_leaves_its_numbers_and_all_that_led_to_them(command, tmp_path, capsys):
    assert evaluate.main(["overcluster", *command, *OVERCLUSTER, "--clusters", "[6, 12]"]) == 0
    report = metrics(tmp_path / "out")
    assert [result["clusters"] for result in report["results"]] == [6, 12]
    for result in report["results"]:
        assert 0 < result["mean"]["miou"] < 1
        assert set(result["class_iou"]) == set(CLASS_NAMES)
        assert len(result["seeds"]) == 2
    assert report["data"] == {"name": "scenes-val", "images": 3, "classes": list(CLASS_NAMES)}
    assert report["label_resolution"] == "16x16"
    assert report["pca_dimensions"] == 24
    assert report["tokens"]["source"] == "untrained head (seed 0) on tiny"
    assert report["settings"]["backbone"]["name"] == "tiny"
    assert report["device"] == "cpu"
    assert report["versions"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "16x16" in printed
    assert "untrained head" in printed
    assert "K = 12" in printed


def test_the_same_settings_give_the_same_numbers(command, tmp_path):
    arguments = ["overcluster", *command, *OVERCLUSTER, "--clusters", "6"]
    evaluate.main(arguments)
    first = metrics(tmp_path / "out")["results"]
    evaluate.main([*arguments, "--batch_size", "3"])
    assert metrics(tmp_path / "out")["results"] == first


@pytest.mark.parametrize("tokens", ["pmvit", "backbone"])
def test_tokens_without_a_head_can_be_scored(command, tmp_path, tokens):
    arguments = [*command, *OVERCLUSTER, "--clusters", "6", "--tokens", tokens]
    assert evaluate.main(["overcluster", *arguments]) == 0
    assert metrics(tmp_path / "out")["tokens"]["channels"] == {"pmvit": 384, "backbone": 96}[tokens]


def test_a_checkpoint_is_scored(command, tmp_path, backbone):
    head = untrained_head(backbone, SegHeadConfig(width=36, hidden=8, projection_dim=4), seed=1)
    torch.save({"momentum_seg_head": head.state_dict()}, tmp_path / "head.pt")
    arguments = [*command, *OVERCLUSTER, "--clusters", "6", "--checkpoint", str(tmp_path / "head.pt")]
    assert evaluate.main(["overcluster", *arguments]) == 0
    tokens = metrics(tmp_path / "out")["tokens"]
    assert tokens["channels"] == 36
    assert tokens["source"] == f"momentum head of {tmp_path / 'head.pt'} on tiny"


def test_a_linear_probe_is_trained_saved_and_scored(command, tmp_path, capsys):
    arguments = [*command, "--crop_size", "64", "--epochs", "3", "--milestones", "[2]"]
    assert evaluate.main(["linear-probe", *arguments]) == 0
    report = metrics(tmp_path / "out")
    assert report["training_data"] == {"name": "scenes-train", "images": 4}
    assert len(report["training_loss"]) == 3
    assert set(report["results"][0]["mean"]) == {"miou", "miou_present", "pixel_accuracy"}
    assert report["training_loss"][-1] < report["training_loss"][0]
    assert report["protocol_of_kind"]["milestones"] == [2]
    assert report["results"][0]["mean"]["pixel_accuracy"] > 0.3
    assert load_linear_classifier(tmp_path / "out" / "linear_classifier.pth.tar").weight.shape == (
        6,
        24,
        1,
        1,
    )
    assert "linear classifier" in capsys.readouterr().out


def test_a_preset_gives_settings_that_arguments_override(command, tmp_path, scenes):
    preset = {
        "data": {"kind": "scenes", "root": str(scenes), "split": "val"},
        "backbone": {"name": "tiny"},
        "tokens": "backbone",
        "clusters": 40,
        "seeds": 1,
        "restarts": 1,
        "label_resolution": 8,
        "size": 64,
        "device": "cpu",
        "output": str(tmp_path / "preset"),
    }
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    arguments = ["overcluster", "--config", str(tmp_path / "preset.yaml"), "--clusters", "7"]
    assert evaluate.main(arguments) == 0
    report = metrics(tmp_path / "preset")
    assert report["settings"]["clusters"] == 7
    assert report["settings"]["tokens"] == "backbone"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clusters", "500"], "500 clusters, but the 3 images of scenes-val have only 48 tokens"),
        (["--size", "70"], "size 70 must be a multiple of the patch size 16"),
        (["--data.split", "test"], "no split"),
        (["--checkpoint", "missing.pt"], "there is no checkpoint file missing.pt"),
    ],
)
def test_bad_input_is_told_in_one_line(command, tmp_path, capsys, arguments, message):
    assert evaluate.main(["overcluster", *command, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_images_without_labels_are_refused(scenes, capsys):
    arguments = [
        "--data.kind",
        "folder",
        "--data.root",
        str(scenes / "JPEGImages"),
        "--backbone.name",
        "tiny",
    ]
    assert evaluate.main(["overcluster", *arguments]) == 2
    assert "no labels to score against" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["overcluster", "linear-probe"])
def test_help_explains_every_setting(protocol, capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluate.main([protocol, "--help"])
    text = capsys.readouterr().out
    for flag in ("--data.kind", "--backbone.name", "--checkpoint", "--branch", "--output", "--precision"):
        assert flag in text
