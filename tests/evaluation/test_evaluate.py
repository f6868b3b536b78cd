"""The command line: every protocol from images to metrics.json, presets, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import hcl
from hcl.commands import evaluate
from hcl.data.dataset import DataConfig
from hcl.data.scenes import CLASS_NAMES
from hcl.engine.checkpoint import FORMAT
from hcl.evaluation import protocol
from hcl.evaluation.baseline import variants
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from hcl.evaluation.overclustering import OverclusteringConfig
from hcl.evaluation.tokens import untrained_head
from hcl.models.backbones import TINY_WEIGHTS, BackboneConfig, build_backbone
from hcl.models.head_files import load_linear_classifier, read_head_checkpoint
from hcl.models.pretrained import PretrainedSegHead
from hcl.models.recorded_backbone import BackboneOverride
from hcl.models.seg_head import SegHeadConfig
from hcl.run_report.evaluations import read_evaluation
from tests.evaluation.conftest import QUICK, SMALL_HEAD

OVERCLUSTER = QUICK["overcluster"]


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
    classes = list(CLASS_NAMES)
    assert report["data"] == {"name": "scenes-val", "images": 3, "classes": classes, "skipped": []}
    assert report["label_resolution"] == "16x16"
    assert report["pca_dimensions"] == 24
    assert report["tokens"]["source"] == "untrained head (seed 0) on tiny"
    assert report["settings"]["backbone"]["name"] == "tiny"
    assert report["device"] == "cpu"
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["hcl"] == hcl.__version__
    printed = capsys.readouterr().out
    assert "16x16" in printed
    assert "untrained head" in printed
    assert "K = 12" in printed


def test_the_same_settings_give_the_same_numbers(command, tmp_path):
    arguments = ["overcluster", *command, *OVERCLUSTER, "--clusters", "6"]
    evaluate.main(arguments)
    first = metrics(tmp_path / "out")["results"]
    evaluate.main([*arguments, "--batch_size", "3", "--overwrite"])
    assert metrics(tmp_path / "out")["results"] == first


@pytest.mark.parametrize("protocol", sorted(set(evaluate.PROTOCOLS) - {"linear"}))
def test_reproducible_algorithms_are_taken_while_a_protocol_runs(command, tmp_path, monkeypatch, protocol):
    within = []

    def noted(*arguments):
        within.append(torch.are_deterministic_algorithms_enabled())
        return complete(*arguments)

    complete = evaluate.complete
    monkeypatch.setattr(evaluate, "complete", noted)
    results = []
    for flag in ("false", "true"):
        quick = [*QUICK[protocol], *(["--clusters=6"] if protocol == "overcluster" else [])]
        assert evaluate.main([protocol, *command, *quick, "--deterministic", flag]) == 0
        results.append(metrics(tmp_path / "out")["results"])
    assert within == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert results[0] == results[1]


def test_a_quick_look_is_never_taken_for_the_whole(command, tmp_path, capsys):
    arguments = [
        "overcluster",
        *command,
        *OVERCLUSTER,
        "--clusters",
        "6",
        "--token_cache",
        str(tmp_path / "kept"),
    ]
    for limit in ([], ["--data.limit", "2"]):
        assert evaluate.main([*arguments, *limit, "--overwrite"]) == 0
    report = metrics(tmp_path / "out")
    assert report["data"]["images"] == report["settings"]["data"]["limit"] == 2
    assert report["data"]["name"] == "2 of the 3 images of scenes-val"
    assert "overcluster of 2 of the 3 images of scenes-val" in capsys.readouterr().out
    assert len([path for path in (tmp_path / "kept").iterdir() if path.is_dir()]) == 2


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


@pytest.mark.parametrize("baseline", [[], ["baseline"]])
def test_a_checkpoint_is_read_once(command, tmp_path, backbone, monkeypatch, baseline):
    head = untrained_head(backbone, SMALL_HEAD, seed=1)
    torch.save({"momentum_seg_head": head.state_dict()}, tmp_path / "head.pt")
    read: list[str] = []

    def counting(path):
        read.append(path)
        return read_head_checkpoint(path)

    monkeypatch.setattr(protocol, "read_head_checkpoint", counting)
    arguments = [*command, *OVERCLUSTER, "--clusters", "6", "--checkpoint", str(tmp_path / "head.pt")]
    assert evaluate.main([*baseline, "overcluster", *arguments]) == 0
    assert read == [str(tmp_path / "head.pt")]


def test_a_head_in_the_hubs_form_is_scored_as_the_checkpoint_that_it_came_from(command, tmp_path, backbone):
    head = untrained_head(backbone, SMALL_HEAD, seed=1)
    torch.save({"momentum_seg_head": head.state_dict()}, tmp_path / "head.pt")
    PretrainedSegHead.of(head, "tiny", [16, 32, 56], "momentum").save_pretrained(tmp_path / "head")
    results = []
    for name in ("head.pt", "head", "head/model.safetensors"):
        place = command.index("--backbone.name")
        said = command if name == "head.pt" else [*command[:place], *command[place + 2 :]]
        arguments = [*said, *OVERCLUSTER, "--clusters", "6", "--checkpoint", str(tmp_path / name)]
        assert evaluate.main(["overcluster", *arguments, "--overwrite"]) == 0
        results.append(metrics(tmp_path / "out")["results"])
    assert results[0] == results[1] == results[2]


def test_a_head_alone_is_scored_with_the_attention_heads_that_it_is_told(command, tmp_path, backbone, capsys):
    shape = replace(SMALL_HEAD, heads=6)
    state = untrained_head(backbone, shape, seed=1).state_dict()
    torch.save({"momentum_seg_head": state, "config": {"head": {"heads": 6}}}, tmp_path / "head.pt")
    save_file(state, tmp_path / "head.safetensors")
    quick = [*OVERCLUSTER, "--clusters", "6", "--overwrite"]
    results = []
    for name, heads in (("head.pt", []), ("head.safetensors", ["--heads", "6"])):
        head = ["--checkpoint", str(tmp_path / name), *heads]
        assert evaluate.main(["overcluster", *command, *quick, *head]) == 0
        results.append(metrics(tmp_path / "out")["results"])
    assert results[0] == results[1]
    assert evaluate.main(["overcluster", *command, "--checkpoint", str(tmp_path / "head.safetensors")]) == 2
    assert (
        "head.safetensors does not record how many attention heads its block has" in capsys.readouterr().err
    )


def test_the_backbone_is_the_one_that_the_checkpoint_records(command, tmp_path, capsys):
    head = untrained_head(build_backbone(BackboneConfig("tiny", patch_sizes=[16, 32])), SMALL_HEAD, seed=1)
    shutil.copy(TINY_WEIGHTS, tmp_path / "own.safetensors")
    own = {"name": "tiny", "weights": str(tmp_path / "own.safetensors"), "patch_sizes": [16, 32]}
    state = {"momentum_seg_head": head.state_dict(), "arch": "tiny", "config": {"backbone": own}}
    torch.save(state, tmp_path / "head.pt")
    place = command.index("--backbone.name")
    unnamed = [*command[:place], *command[place + 2 :], "--checkpoint", str(tmp_path / "head.pt")]
    quick = [*OVERCLUSTER, "--clusters", "6"]
    assert evaluate.main(["overcluster", *unnamed, *quick]) == 0
    report = metrics(tmp_path / "out")
    assert report["settings"]["backbone"] == own
    assert report["tokens"]["source"].endswith("head.pt on tiny")
    assert evaluate.main(["overcluster", *unnamed, *quick, "--backbone.name", "tiny"]) == 0
    assert metrics(tmp_path / "out")["results"] == report["results"]
    assert evaluate.main(["baseline", "overcluster", *unnamed, *quick, "--overwrite"]) == 0
    all_tokens = metrics(tmp_path / "out")["all_tokens"]
    assert [tokens["channels"] for tokens in all_tokens.values()] == [96, 288, 24, 24]
    assert all("tiny" in tokens["source"] for tokens in all_tokens.values())
    capsys.readouterr()
    other = [*unnamed, "--backbone.name", "dino_vits16", "--overwrite"]
    for name in ("overcluster", "cluster", "linear-probe", "retrieval", "fully-unsupervised"):
        assert evaluate.main([name, *other]) == 2
        assert "was trained on the backbone tiny, not on dino_vits16: leave out" in capsys.readouterr().err


def test_a_published_head_needs_the_name_of_its_backbone(command, tmp_path, backbone, capsys):
    head = untrained_head(backbone, SMALL_HEAD, seed=1)
    torch.save({"momentum_seg_head": head.state_dict(), "arch": "vit_small"}, tmp_path / "hcl.pth.tar")
    place = command.index("--backbone.name")
    unnamed = [*command[:place], *command[place + 2 :], "--checkpoint", str(tmp_path / "hcl.pth.tar")]
    assert evaluate.main(["cluster", *unnamed, *QUICK["cluster"]]) == 2
    assert "hcl.pth.tar does not record which backbone it was trained on" in capsys.readouterr().err


def test_a_linear_probe_is_trained_saved_and_scored(command, tmp_path, capsys):
    assert evaluate.main(["linear-probe", *command, *QUICK["linear-probe"]]) == 0
    report = metrics(tmp_path / "out")
    assert report["training_data"] == {"name": "scenes-train", "images": 4, "skipped": []}
    assert len(report["training_loss"]) == 3
    assert report["training_loss"][-1] < report["training_loss"][0]
    assert report["training"] == {"milestones": [2], "view_size": 64}
    assert report["labels_used_for"] == "training the classifier, on scenes-train"
    (result,) = report["results"]
    assert set(result["mean"]) == {"miou", "miou_present", "pixel_accuracy"}
    assert result["mean"]["pixel_accuracy"] > 0.3
    path = tmp_path / "out" / "linear_classifier.pth.tar"
    assert load_linear_classifier(path).weight.shape == (6, 24, 1, 1)
    assert "linear classifier" in capsys.readouterr().out
    again = ["linear", *command, "--classifier", str(path), "--output", str(tmp_path / "again")]
    assert evaluate.main(again) == 0
    assert metrics(tmp_path / "again")["results"] == [result]


def test_the_crf_is_scored_beside_the_plain_predictions(command, tmp_path, capsys):
    save_classifier(untrained_classifier(24, 6, seed=0), tmp_path / "classifier.pth.tar")
    arguments = ["linear", *command, "--classifier", str(tmp_path / "classifier.pth.tar"), "--crf"]
    assert evaluate.main([*arguments, "--crf_settings.iterations", "2"]) == 0
    report = metrics(tmp_path / "out")
    assert [result["name"] for result in report["results"]] == [
        "linear classifier",
        "linear classifier, CRF",
    ]
    assert "2 iterations" in report["crf"]
    assert "CRF dense CRF by pydensecrf, 2" in capsys.readouterr().out


def test_published_files_give_the_numbers_of_this_projects_own(command, tmp_path, backbone):
    """A head and a classifier saved as the published program saves them, DistributedDataParallel and all."""
    heads = [untrained_head(backbone, SMALL_HEAD, seed).state_dict() for seed in (1, 2)]
    classifier = untrained_classifier(24, 6, seed=0)
    nn.init.normal_(classifier.weight, generator=torch.Generator().manual_seed(3))
    both = {"momentum_seg_head": heads[0], "online_seg_head": heads[1]}
    torch.save({"format": FORMAT, **both}, tmp_path / "own.pt")
    save_classifier(classifier, tmp_path / "own_classifier.pth.tar")
    centroids = {f"centroids_{side}": torch.zeros(5, 4) for side in ("foreground", "background")}
    wrapped = {name: {f"module.{key}": value for key, value in state.items()} for name, state in both.items()}
    torch.save(
        {"epoch": 10, "arch": "vit_small", "optimizer": {}, **wrapped, **centroids}, tmp_path / "hcl.pth.tar"
    )
    state = {f"module.{key}": value for key, value in classifier.state_dict().items()}
    torch.save({"epoch": 10, "linear_classifier": state}, tmp_path / "classifier.pth.tar")
    for branch in ("momentum", "online"):
        results = []
        for head, linear in (("own.pt", "own_classifier.pth.tar"), ("hcl.pth.tar", "classifier.pth.tar")):
            files = ["--checkpoint", str(tmp_path / head), "--classifier", str(tmp_path / linear)]
            assert evaluate.main(["linear", *command, *files, "--branch", branch, "--overwrite"]) == 0
            results.append(metrics(tmp_path / "out")["results"])
        assert results[0] == results[1]


def test_clusters_are_matched_with_classes_one_to_one(command, tmp_path):
    assert evaluate.main(["cluster", *command, *QUICK["cluster"]]) == 0
    report = metrics(tmp_path / "out")
    assert report["results"][0]["clusters"] == len(CLASS_NAMES)
    assert report["settings"]["matching"] == "hungarian"


def test_foreground_maps_are_scored(command, tmp_path, capsys):
    assert evaluate.main(["foreground", *command, "--keep_mass", "[0.5, 0.9]"]) == 0
    report = metrics(tmp_path / "out")
    assert [result["name"] for result in report["results"]] == ["attention, θ = 0.5", "attention, θ = 0.9"]
    assert all(0 < result["mean"]["jaccard"] < 1 for result in report["results"])
    assert "Jaccard index" in capsys.readouterr().out


def test_foreground_maps_are_those_of_a_checkpoints_backbone(command, tmp_path, backbone):
    state = untrained_head(backbone, SMALL_HEAD, 1).state_dict()
    config = {"backbone": {"name": "tiny_random"}}
    torch.save({"momentum_seg_head": state, "config": config}, tmp_path / "h.pt")
    own = [*command, *QUICK["foreground"]]
    given = [argument for argument in own if argument not in ("--backbone.name", "tiny")]
    assert evaluate.main(["foreground", *given, "--checkpoint", str(tmp_path / "h.pt")]) == 0
    assert metrics(tmp_path / "out")["tokens"]["source"] == "tiny_random"


def test_labels_are_retrieved(command, tmp_path, capsys):
    assert evaluate.main(["retrieval", *command, *QUICK["retrieval"]]) == 0
    report = metrics(tmp_path / "out")
    assert report["memory_tokens"] == 20
    mean = report["results"][0]["mean"]
    assert 0 < mean["miou"] <= mean["matched_miou"] < 1
    assert report["labels_used_for"] == "the memory, on scenes-train; the matched mIoU, on the scored images"
    assert "the matched mIoU, on the scored images" in " ".join(capsys.readouterr().out.split())


def test_a_memory_may_hold_every_training_token(command, tmp_path):
    assert evaluate.main(["retrieval", *command]) == 0
    assert metrics(tmp_path / "out")["memory_tokens"] == 4 * 16


def test_communities_are_found_by_both_thresholds(command, tmp_path):
    assert evaluate.main(["fully-unsupervised", *command, *QUICK["fully-unsupervised"]]) == 0
    report = metrics(tmp_path / "out")
    reads = {r["name"].split(" threshold")[0]: r.get("threshold_reads_labels") for r in report["results"]}
    assert reads == {
        "foreground: attention": None,
        "foreground: published": True,
        "communities: published": True,
        "foreground: otsu": False,
        "communities: otsu": False,
    }
    assert "the published threshold, on scenes-train" in report["labels_used_for"]
    assert len(report["results"][2]["communities"]) == 2


def test_the_seeds_that_are_named_are_those_that_ran(command, tmp_path):
    settings = [*QUICK["fully-unsupervised"], "--thresholds", '["otsu"]', "--seed", "5"]
    assert evaluate.main(["fully-unsupervised", *command, *settings]) == 0
    seeds = {
        result["name"].split(":")[0]: [run["seed"] for run in result["seeds"]]
        for result in metrics(tmp_path / "out")["results"]
    }
    assert seeds == {"foreground": [5], "communities": [1, 2]}
    assert evaluate.main(["foreground", *command, *QUICK["foreground"], "--seed", "5", "--overwrite"]) == 0
    assert [run["seed"] for run in metrics(tmp_path / "out")["results"][0]["seeds"]] == [5]


def test_a_baseline_scores_what_a_head_starts_from(command, tmp_path, backbone):
    torch.save({"momentum_seg_head": untrained_head(backbone, SMALL_HEAD, 1).state_dict()}, tmp_path / "h.pt")
    arguments = [*command, *OVERCLUSTER, "--clusters", "6", "--checkpoint", str(tmp_path / "h.pt")]
    assert evaluate.main(["baseline", "overcluster", *arguments]) == 0
    report = metrics(tmp_path / "out")
    assert report["protocol"] == "baseline overcluster"
    names = ["backbone", "z", "untrained head", "trained head"]
    assert [result["name"] for result in report["results"]] == [f"{name}: K = 6" for name in names]
    assert [tokens["channels"] for tokens in report["all_tokens"].values()] == [96, 384, 24, 24]
    backbones = {tokens["backbone_digest"] for tokens in report["all_tokens"].values()}
    assert len(backbones) == 1
    assert evaluate.main(["overcluster", *arguments, "--output", str(tmp_path / "alone")]) == 0
    alone = metrics(tmp_path / "alone")["results"][0]
    assert report["results"][3]["mean"] == alone["mean"]


def test_both_heads_of_a_baseline_have_one_shape(tmp_path, backbone, scenes):
    given = untrained_head(backbone, replace(SMALL_HEAD, kind="mlp", width=20), seed=1)
    torch.save({"momentum_seg_head": given.state_dict()}, tmp_path / "h.pt")
    data = DataConfig("scenes", str(scenes), "val")
    backbone_config = BackboneOverride(name="tiny")
    chosen = variants(
        OverclusteringConfig(data=data, checkpoint=str(tmp_path / "h.pt"), backbone=backbone_config)
    )
    assert chosen["untrained head"].head == chosen["trained head"].given_head.head.config == given.config


def test_a_baseline_says_of_all_rows_only_what_holds_for_each(command, tmp_path):
    out = tmp_path / "out"
    assert evaluate.main(["baseline", "linear-probe", *command, *QUICK["linear-probe"]]) == 0
    report = metrics(out)
    assert report["training_data"] == {"name": "scenes-train", "images": 4, "skipped": []}
    assert not {"tokens", "classifier", "training_loss"} & report.keys()
    expected = (
        "backbone: tiny, 96 channels, grid 4x4; z: PM-ViT on tiny, 384 channels, grid 4x4; "
        "untrained head: untrained head (seed 0) on tiny, 24 channels, grid 4x4"
    )
    assert read_evaluation(out / "metrics.json").facts["tokens"] == expected


def test_no_protocol_writes_where_another_does(scenes):
    """By default; a preset and the command line may say otherwise."""
    data = ["--data.kind=scenes", f"--data.root={scenes}", "--data.split=val"]
    own = {"linear": ["--classifier=classifier.pth.tar"]}
    ways = [[name, *own.get(name, [])] for name in evaluate.PROTOCOLS]
    ways += [["baseline", name] for name in evaluate.PROTOCOLS if name not in evaluate.WITHOUT_BASELINE]
    outputs = [evaluate.parse([*way, *data]).config.output for way in ways]
    assert len(set(outputs)) == len(ways)
    assert "runs/evaluation/linear-probe" in outputs
    assert "runs/evaluation/baseline-linear-probe" in outputs
    assert evaluate.parse(["cluster", *data, "--output=elsewhere"]).config.output == "elsewhere"


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


@pytest.fixture
def own_photographs(scenes, tmp_path) -> list[str]:
    """The scenes as a folder of photographs and one of masks."""
    for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        for split in ("train", "val"):
            folder = tmp_path / kind / split
            folder.mkdir(parents=True)
            for file in (scenes / kind).glob(f"{split}*.{suffix}"):
                shutil.copy(file, folder)
    masks = ["--data.masks", str(tmp_path / "SegmentationClass"), "--data.mask_classes", "6"]
    return ["--data.kind", "folder", "--data.root", str(tmp_path / "JPEGImages"), *masks]


@pytest.mark.parametrize("protocol", ["overcluster", "foreground", "linear-probe", "retrieval"])
def test_own_photographs_and_masks_are_scored_as_a_data_set_is(command, own_photographs, tmp_path, protocol):
    quick = [*QUICK[protocol], *(["--clusters=6"] if protocol == "overcluster" else [])]
    assert evaluate.main([protocol, *command, *quick]) == 0
    expected = metrics(tmp_path / "out")
    assert evaluate.main([protocol, *command, *quick, *own_photographs, "--overwrite"]) == 0
    found = metrics(tmp_path / "out")
    assert found["data"]["images"] == 3
    assert found["data"]["classes"] == [f"class {number}" for number in range(6)]
    assert [result["mean"] for result in found["results"]] == [
        result["mean"] for result in expected["results"]
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--clusters", "500"],
            "500 clusters are too many for the 48 tokens of scenes-val at this size: lower --clusters",
        ),
        (["--size", "70"], "size 70 must be a multiple of the patch size 16"),
        (["--data.split", "test"], "no split"),
        (["--checkpoint", "missing.pt"], "there is no checkpoint file missing.pt"),
        (
            ["--data.root", "gone", "--data.kind", "voc"],
            "there is no folder gone: give the folder of the data set (voc)",
        ),
        (["--data.kind", "folder", "--data.split", ""], "no labels to score against"),
    ],
)
def test_bad_input_is_told_in_one_line(command, tmp_path, capsys, arguments, message):
    assert evaluate.main(["overcluster", *command, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("channels", "classes", "message"),
    [
        (25, 6, "tokens with 25 channels, but these have 24"),
        (24, 21, "has 21 classes, but scenes-val has 6"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(command, tmp_path, capsys, channels, classes, message):
    path = tmp_path / "classifier.pth.tar"
    save_classifier(untrained_classifier(channels, classes, seed=0), path)
    assert evaluate.main(["linear", *command, "--classifier", str(path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["cluster", "linear-probe", "retrieval"])
def test_labels_outside_the_classes_are_refused(command, scenes, tmp_path, capsys, protocol):
    own = tmp_path / "scenes"
    shutil.copytree(scenes, own)
    mask = next((own / "SegmentationClass").glob("val_*.png"))
    with Image.open(mask) as image:
        values = np.array(image)
    values[5, 5] = 77
    Image.fromarray(values).save(mask)
    assert evaluate.main([protocol, *command, *QUICK[protocol], "--data.root", str(own)]) == 2
    error = capsys.readouterr().err
    assert mask.name in error
    assert "77" in error


def test_images_that_are_skipped_are_named_in_the_report(command, scenes, tmp_path):
    own = tmp_path / "scenes"
    shutil.copytree(scenes, own)
    broken = own / "JPEGImages" / "val_00001.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    arguments = [*command, *QUICK["cluster"], "--data.root", str(own), "--data.on_error", "skip"]
    assert evaluate.main(["cluster", *arguments]) == 0
    data = metrics(tmp_path / "out")["data"]
    assert data["images"] == 2
    assert [str(broken) in reason for reason in data["skipped"]] == [True]


def test_more_clusters_than_foreground_are_refused(command, capsys):
    arguments = [*command, *QUICK["fully-unsupervised"], "--community_clusters", "5000"]
    assert evaluate.main(["fully-unsupervised", *arguments]) == 2
    assert "lower the number of clusters" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", sorted(evaluate.PROTOCOLS))
def test_help_explains_every_setting(protocol, capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluate.main([protocol, "--help"])
    text = capsys.readouterr().out
    for flag in ("--data.kind", "--backbone.name", "--checkpoint", "--branch", "--output", "--precision"):
        assert flag in text
