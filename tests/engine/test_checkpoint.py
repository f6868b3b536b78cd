import pytest
import torch

from hcl.engine.checkpoint import changed_settings, load_checkpoint, save_checkpoint
from hcl.models.weights import CheckpointError


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 3, "weights": torch.arange(4.0), "nothing": None}, path)
    state = load_checkpoint(path)
    assert state["step"] == 3
    assert state["nothing"] is None
    assert torch.equal(state["weights"], torch.arange(4.0))


def test_a_failed_save_leaves_the_one_before_and_no_rubbish(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 3}, path)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint({"step": 4, "bad": (item for item in ())}, path)
    assert load_checkpoint(path)["step"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_truncated_checkpoint_is_refused_by_name(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"weights": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        load_checkpoint(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"linear_classifier": {}}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        load_checkpoint(path)


def test_changed_settings_are_named_unless_free():
    saved = {"seed": 7, "output": "a", "head": {"width": 768}}
    current = {"seed": 7, "output": "b", "head": {"width": 512}}
    assert changed_settings(saved, current, frozenset({"output"})) == ["head.width: 768 -> 512"]
