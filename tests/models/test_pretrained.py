"""Heads in the Hub's form, read offline: by huggingface_hub's mixin, and by whatever reads checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hcl.models.head_files import load_seg_head
from hcl.models.pretrained import PretrainedSegHead
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.weights import CheckpointError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def head() -> SegHead:
    return SegHead(48, SegHeadConfig("block", width=24, hidden=16, projection_dim=8, heads=6))


@pytest.fixture
def folder(head, tmp_path) -> Path:
    PretrainedSegHead.of(head, "dino_vits16", [16, 32, 56], "momentum").save_pretrained(tmp_path / "head")
    return tmp_path / "head"


def equal(left: SegHead, right: SegHead) -> bool:
    states = left.state_dict(), right.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][k], states[1][k]) for k in states[0]
    )


def test_a_saved_head_comes_back_with_its_shape_and_its_backbone(head, folder):
    again = PretrainedSegHead.from_pretrained(folder)
    assert equal(again, head)
    assert again.config == head.config
    assert (again.backbone, again.patch_sizes, again.branch) == ("dino_vits16", [16, 32, 56], "momentum")
    assert not again.training


def test_a_saved_head_has_a_card_that_says_how_to_load_it(folder):
    card = (folder / "README.md").read_text()
    assert "library_name: hcl-segmentation" in card.split("---")[1]
    assert "PretrainedSegHead.from_pretrained(" in card
    assert "More Information Needed" not in card


def test_what_was_loaded_can_be_saved_again(head, folder, tmp_path):
    PretrainedSegHead.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (folder / "config.json").read_text()
    assert equal(PretrainedSegHead.from_pretrained(tmp_path / "again"), head)


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_folder_and_file_are_read_where_checkpoints_are(head, folder, name):
    loaded = load_seg_head(folder / name)
    assert equal(loaded, head)
    assert loaded.config == head.config


def test_a_file_without_its_config_takes_the_heads_that_it_is_told(head, folder):
    (folder / "config.json").unlink()
    assert load_seg_head(folder / "model.safetensors", heads=6).config == head.config


def test_a_file_without_its_config_is_not_taken_for_a_head_of_12_heads(folder, tmp_path):
    (folder / "config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"safetensors does not record how many attention heads .*--heads"
    ):
        load_seg_head(folder / "model.safetensors")
    alone = SegHead(48, SegHeadConfig("mlp", width=24, hidden=16, projection_dim=8))
    save_file(alone.state_dict(), tmp_path / "mlp.safetensors")
    assert equal(load_seg_head(tmp_path / "mlp.safetensors"), alone)


def test_the_other_branch_is_not_there(folder):
    with pytest.raises(CheckpointError, match="has no online_seg_head; it holds momentum_seg_head"):
        load_seg_head(folder, "online")


def test_missing_weights_are_refused_not_drawn(folder):
    state = load_file(folder / "model.safetensors")
    del state["norm.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"norm\.weight is missing"):
        PretrainedSegHead.from_pretrained(folder)


def test_a_shape_that_the_tensors_do_not_have_takes_no_memory(head, folder):
    settings = json.loads((folder / "config.json").read_text())
    settings["shape"] |= {"width": 12 * 10**8, "hidden": 10**9}
    settings["in_features"] = 10**9
    (folder / "config.json").write_text(json.dumps(settings))
    assert PretrainedSegHead.from_pretrained(folder).config == head.config


def test_a_folder_that_tells_of_no_backbone_is_refused(folder):
    (folder / "config.json").write_text('{"in_features": 48}')
    with pytest.raises(CheckpointError, match=r"config\.json lacks backbone"):
        PretrainedSegHead.from_pretrained(folder)


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100000])
def test_a_config_that_is_none_is_refused_by_name(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_seg_head(folder)


def test_a_pickle_beside_is_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file .*model\.safetensors"):
        PretrainedSegHead.from_pretrained(folder)


def test_the_folder_of_a_run_is_told_what_to_give_instead(tmp_path):
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(
        CheckpointError, match=r"is the folder of a run: give its checkpoint .*checkpoint\.pt"
    ):
        load_seg_head(tmp_path)


def test_neither_models_nor_commands_import_the_hub():
    script = "import sys, train, evaluate, hcl.export.write; print('huggingface_hub' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
