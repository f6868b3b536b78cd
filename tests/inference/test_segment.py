"""The segment command: what it leaves for each photograph, and how it goes on and gives up."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hcl.commands import evaluate
from hcl.data.samples import Dataset, Sample
from hcl.data.scenes import CLASS_NAMES
from hcl.distributed import World
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from hcl.inference.segment import SegmentConfig, run
from hcl.inference.segment_folder import outputs_of
from kernels.crf import pydensecrf


@pytest.fixture
def folder(photographs, tmp_path) -> Path:
    """Three photographs, one of them in a sub-folder and one much wider than high."""
    own = tmp_path / "holiday"
    (own / "beach").mkdir(parents=True)
    shutil.copy(photographs[0], own / "one.jpg")
    shutil.copy(photographs[1], own / "beach" / "two.jpg")
    Image.open(photographs[2]).resize((130, 60)).save(own / "three.png")
    return own


@pytest.fixture
def segment(checkpoint, tmp_path):
    """Runs the command on photographs, with a few settings; returns its exit status."""

    def run(photographs: Path, *settings: str) -> int:
        fixed = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--size", "64"]
        quick = ["--batch_size", "2", "--device", "cpu", "--clusters", "6"]
        return evaluate.main(["segment", str(photographs), *fixed, *quick, *settings])

    return run


def test_every_photograph_gets_a_map_and_an_overlay_of_its_size(segment, folder, tmp_path, capsys):
    assert segment(folder) == 0
    record = json.loads((tmp_path / "out" / "segments.json").read_text())
    assert [label["id"] for label in record["labels"]] == list(range(6))
    for name, size in (("one", (72, 72)), ("beach/two", (72, 72)), ("three", (130, 60))):
        with Image.open(tmp_path / "out" / "labels" / f"{name}.png") as image:
            assert image.mode == "P"
            assert image.size == size
            values = np.asarray(image)
            colours = np.asarray(image.convert("RGB"))
        for value in np.unique(values):
            assert {"#" + bytes(colour).hex() for colour in colours[values == value]} == {
                record["labels"][value]["colour"]
            }
        assert Image.open(tmp_path / "out" / "overlays" / f"{name}.jpg").size == size
    assert Image.open(tmp_path / "out" / "legend.png").size[1] > 5 * 20
    assert "segmented 3 of 3 photographs" in capsys.readouterr().out


def test_one_photograph_gives_what_it_gives_in_its_folder(segment, folder, tmp_path):
    segment(folder)
    together = (tmp_path / "out" / "labels" / "one.png").read_bytes()
    assert segment(folder / "one.jpg", "--output", str(tmp_path / "single")) == 0
    assert (tmp_path / "single" / "labels" / "one.png").read_bytes() == together


def test_classes_have_names_and_a_legend(segment, folder, tmp_path):
    save_classifier(untrained_classifier(24, 6, seed=0), tmp_path / "classifier.pth.tar")
    assert segment(folder, "--classifier", str(tmp_path / "classifier.pth.tar")) == 0
    record = json.loads((tmp_path / "out" / "segments.json").read_text())
    assert tuple(label["name"] for label in record["labels"]) == CLASS_NAMES
    assert Image.open(tmp_path / "out" / "legend.png").size[1] > 6 * 20


def test_the_crf_changes_the_maps(segment, folder, tmp_path):
    segment(folder)
    crf = ["--crf", "true", "--crf_size", "48", "--crf_settings.impl", "torch"]
    assert segment(folder, *crf, "--output", str(tmp_path / "crf")) == 0
    changed = []
    for name in ("one.png", "beach/two.png", "three.png"):
        plain, refined = (np.asarray(Image.open(tmp_path / to / "labels" / name)) for to in ("out", "crf"))
        assert refined.shape == plain.shape
        changed.append(bool((refined != plain).any()))
    assert any(changed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "impl='pydensecrf' needs that library: pip install '.[evaluation]'"),
        (["--crf_settings.impl", "torch"], "takes up to 10000 of them, got 512x512"),
    ],
)
def test_a_crf_that_cannot_run_is_told_before_any_work(
    segment, folder, tmp_path, capsys, monkeypatch, settings, message
):
    monkeypatch.setattr(pydensecrf, "find_spec", lambda name: None)
    assert segment(folder, "--crf", *settings) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_where_it_was_cut_short(segment, folder, tmp_path, capsys):
    segment(folder)
    done = tmp_path / "out" / "labels" / "one.png"
    before = done.stat().st_mtime_ns
    missing = tmp_path / "out" / "overlays" / "three.jpg"
    missing.unlink()
    assert segment(folder, "--resume", "--batch_size", "3") == 0
    assert missing.exists()
    assert done.stat().st_mtime_ns == before
    assert "segmented 1 of 3 photographs (2 had been segmented before): see" in capsys.readouterr().out


class LaterRank(World):
    """One of two ranks, when the ranks before it are done."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def union(self, found: set) -> set:
        return found

    def barrier(self) -> None:
        pass


def test_a_rank_that_begins_late_leaves_nothing_out(folder, checkpoint, tmp_path):
    config = SegmentConfig(
        photographs=str(folder),
        checkpoint=str(checkpoint),
        output=str(tmp_path / "out"),
        size=64,
        clusters=6,
        resume=True,
    )
    for rank in range(2):
        run(config, LaterRank(rank, 2, torch.device("cpu")))
    assert len([*(tmp_path / "out" / "labels").rglob("*.png")]) == 3


def test_a_run_goes_on_with_files_that_moved_and_not_with_other_weights(
    segment, folder, checkpoint, tmp_path, capsys
):
    segment(folder)
    moved = shutil.copy(checkpoint, tmp_path / "moved.pt")
    assert segment(folder, "--resume", "--checkpoint", str(moved)) == 0
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "momentum_seg_head": state["online_seg_head"]}, moved)
    assert segment(folder, "--resume", "--checkpoint", str(moved)) == 2
    assert "made with other settings (digests.head: " in capsys.readouterr().err


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_pictures_of_other_settings_are_not_mixed(segment, folder, capsys, resume):
    segment(folder)
    assert segment(folder, *resume, "--clusters", "7") == 2
    assert "made with other settings (clusters: 6 -> 7)" in capsys.readouterr().err


def test_pictures_of_other_settings_are_removed_when_told(segment, folder, tmp_path, capsys):
    segment(folder)
    out = tmp_path / "out"
    for own in ("notes.txt", "own.png"):
        (out / "labels" / own).touch()
    others = tmp_path / "others"
    others.mkdir()
    (folder / "one.jpg").rename(others / "two.jpg")
    assert segment(others, "--overwrite", "--clusters", "7") == 0
    assert sorted(path.name for path in (out / "labels").rglob("*.*")) == ["notes.txt", "own.png", "two.png"]
    assert [path.name for path in (out / "overlays").rglob("*.*")] == ["two.jpg"]
    assert segment(others, "--overwrite", "--resume") == 2
    assert "choose one" in capsys.readouterr().err
    assert segment(out / "overlays", "--overwrite") == 2
    assert "is among the pictures" in capsys.readouterr().err


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_masks_of_somebody_else_are_not_written_over(segment, folder, tmp_path, capsys, overwrite):
    mask = tmp_path / "out" / "labels" / "one.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"mine")
    assert segment(folder, *overwrite) == 2
    assert "no segments.json records that this program made them" in capsys.readouterr().err
    assert mask.read_bytes() == b"mine"


def test_photographs_that_differ_in_their_ending_only_do_not_share_pictures(segment, folder, tmp_path):
    Image.open(folder / "one.jpg").save(folder / "one.png")
    assert segment(folder) == 0
    found = sorted(path.name for path in (tmp_path / "out" / "labels").glob("*.png"))
    assert found == ["one.jpg.png", "one.png.png", "three.png"]


def test_no_two_photographs_share_pictures(tmp_path):
    names = ["a.jpg", "a.jpg.png", "a.jpg.png.webp", "a.png", "b.jpg", "c/a.jpg", "c/d.jpg.png"]
    dataset = Dataset("holiday", [Sample(tmp_path / name, None, name) for name in names])
    outputs = outputs_of(dataset, tmp_path)
    kept = ["a.jpg", "a.jpg.png", "a.jpg.png.webp", "a.png", "b", "c/a", "c/d.jpg"]
    assert [own.labels for own in outputs] == [tmp_path / "labels" / f"{name}.png" for name in kept]
    assert [own.overlay for own in outputs] == [tmp_path / "overlays" / f"{name}.jpg" for name in kept]


def test_a_bad_file_stops_the_run_before_it_begins(segment, folder, tmp_path, capsys):
    (folder / "letter.jpg").write_text("Dear Sir or Madam")
    assert segment(folder) == 2
    assert "letter.jpg is not a complete image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["checkpoint", "classifier"])
def test_a_mistyped_file_is_told_before_photographs_are_looked_into(segment, folder, capsys, setting):
    (folder / "letter.jpg").write_text("Dear Sir or Madam")
    assert segment(folder, f"--{setting}", "missing.pt") == 2
    assert "missing.pt" in capsys.readouterr().err


def test_bad_files_are_skipped_and_named(segment, folder, tmp_path, caplog, capsys):
    (folder / "letter.jpg").write_text("Dear Sir or Madam")
    assert segment(folder, "--on_error", "skip") == 0
    assert "letter.jpg is not a complete image" in caplog.text
    assert "segmented 3 of 4 photographs" in capsys.readouterr().out
    assert not (tmp_path / "out" / "labels" / "letter.png").exists()


def test_no_photograph_at_all_is_an_error(segment, tmp_path, capsys):
    assert segment(tmp_path / "none.jpg") == 2
    assert "none.jpg does not exist" in capsys.readouterr().err
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam")
    assert segment(tmp_path / "letter.jpg", "--on_error", "skip") == 2
    assert "none of the 1 photographs can be used" in capsys.readouterr().err


def test_pictures_do_not_go_among_the_photographs(segment, folder, capsys):
    assert segment(folder, "--output", str(folder / "out")) == 2
    assert "lies in the folder of photographs" in capsys.readouterr().err


def test_a_checkpoint_without_clusters_needs_a_classifier(segment, published, folder, capsys):
    published_head = ["--checkpoint", str(published), "--backbone.name", "tiny"]
    assert segment(folder, *published_head) == 2
    assert "holds no clusters" in capsys.readouterr().err


def test_a_head_in_the_hubs_form_labels_by_a_classifier(segment, pretrained, folder, tmp_path, capsys):
    assert segment(folder, "--checkpoint", str(pretrained)) == 2
    assert "give a --classifier" in capsys.readouterr().err
    save_classifier(untrained_classifier(24, 6, seed=1), tmp_path / "classifier.pth.tar")
    labels = ["--classifier", str(tmp_path / "classifier.pth.tar"), "--class_names", "scenes"]
    assert segment(folder, "--checkpoint", str(pretrained), *labels, "--output", str(tmp_path / "out")) == 0
    assert (tmp_path / "out" / "legend.png").exists()


def test_a_head_alone_needs_its_number_of_attention_heads(segment, pretrained, folder, tmp_path, capsys):
    alone = shutil.copy(pretrained / "model.safetensors", tmp_path / "head.safetensors")
    save_classifier(untrained_classifier(24, 6, seed=1), tmp_path / "classifier.pth.tar")
    labels = ["--classifier", str(tmp_path / "classifier.pth.tar"), "--class_names", "scenes"]
    head = ["--checkpoint", str(alone), "--backbone.name", "tiny"]
    assert segment(folder, *head, *labels) == 2
    assert "give --heads, such as 12" in capsys.readouterr().err
    assert segment(folder, *head, *labels, "--heads", "6") == 0


def test_names_without_a_classifier_are_refused(segment, folder, capsys):
    assert segment(folder, "--class_names", "voc") == 2
    assert "class_names='voc' names the classes of a classifier: give --classifier" in capsys.readouterr().err
