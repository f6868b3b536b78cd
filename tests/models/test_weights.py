import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.head_files import load_linear_classifier, load_seg_head
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.weights import CheckpointError, load_into, read_checkpoint


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def head(kind: str = "block") -> SegHead:
    return SegHead(48, SegHeadConfig(kind, width=24, hidden=16, projection_dim=8, heads=12))


def save_published(path: Path, online: SegHead, momentum: SegHead, prefix: str = "") -> Path:
    """A file in the format of the published ``hcl_*.pth.tar``."""
    optimizer = torch.optim.AdamW(online.parameters())
    content = {
        "epoch": 10,
        "arch": "vit_small",
        "optimizer": optimizer.state_dict(),
        "centroids_foreground": torch.randn(5, 8),
        "centroids_background": torch.randn(5, 8),
        "online_seg_head": {prefix + key: value for key, value in online.state_dict().items()},
        "momentum_seg_head": {prefix + key: value for key, value in momentum.state_dict().items()},
    }
    torch.save(content, path)
    return path


def test_a_backbone_given_as_a_head_is_told(tmp_path):
    state = build_backbone(BackboneConfig("tiny")).vit.state_dict()
    torch.save(state, tmp_path / "vit.pth")
    save_file(state, tmp_path / "vit.safetensors")
    for path in tmp_path.iterdir():
        with pytest.raises(CheckpointError, match=r"holds a backbone .*--backbone\.weights"):
            load_seg_head(path)


def test_a_file_with_a_backbone_and_a_head_is_read(tmp_path):
    content = {"momentum_seg_head": head().state_dict(), "backbone": {"cls_token": torch.zeros(1, 1, 4)}}
    torch.save(content, tmp_path / "both.pth")
    assert load_seg_head(tmp_path / "both.pth").config == head().config


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_is_refused(tmp_path, protocol):
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "executed"), protocol=protocol))
    with pytest.raises(CheckpointError, match=r"hostile\.pkl was refused"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_a_text_is_no_checkpoint(tmp_path):
    (tmp_path / "README.md").write_text("# A title")
    with pytest.raises(CheckpointError, match=r"README\.md cannot be read as a checkpoint: it is not one"):
        read_checkpoint(tmp_path / "README.md")


def test_a_pickle_that_would_execute_code_is_refused_unexecuted(tmp_path):
    target, path = tmp_path / "executed", tmp_path / "hostile.pth"
    torch.save({"cls_token": torch.zeros(1), "extra": Hostile(target)}, path)
    with pytest.raises(CheckpointError, match=r"hostile\.pth was refused \(.*system.*could execute code"):
        read_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"<html>not found</html>"])
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pth"):
        read_checkpoint(path)


def test_what_a_reader_of_pickles_stumbles_over_is_not_told(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(
        CheckpointError, match=r"text\.pt cannot be read .*: it is not one, or it is damaged$"
    ):
        read_checkpoint(tmp_path / "text.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        read_checkpoint(tmp_path / "absent.pth")


def test_what_is_not_a_dict_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor, not a dict"):
        read_checkpoint(tmp_path / "tensor.pth")


def test_load_into_names_every_key_that_does_not_fit():
    state = {"weight": torch.zeros(2, 7), "gain": torch.zeros(2)}
    with pytest.raises(CheckpointError) as refusal:
        load_into(nn.Linear(3, 2), state, "w.pth")
    message = str(refusal.value)
    assert message.startswith("w.pth does not fit this Linear")
    assert "bias is missing" in message
    assert "gain is unknown" in message
    assert "weight is (2, 7) in the file, (2, 3) in the model" in message


def test_load_into_keeps_the_list_short():
    with pytest.raises(CheckpointError, match=r"; and 16 more$"):
        load_into(head(), {}, "w.pth")


def test_load_into_refuses_what_is_no_tensor():
    with pytest.raises(CheckpointError, match=r"bias is a str in the file, \(2,\) in the model"):
        load_into(nn.Linear(3, 2), {"weight": torch.zeros(2, 3), "bias": "none"}, "w.pth")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", ["block", "mlp"])
def test_reads_both_heads_of_a_published_file(tmp_path, kind, prefix):
    online, momentum = head(kind), head(kind)
    path = save_published(tmp_path / "hcl_pascal_p16.pth.tar", online, momentum, prefix)
    for branch, original in (("online", online), ("momentum", momentum)):
        loaded = load_seg_head(path, branch)
        assert loaded.config == original.config
        assert all(torch.equal(t, original.state_dict()[key]) for key, t in loaded.state_dict().items())
    assert torch.equal(load_seg_head(path).norm.weight, momentum.norm.weight)


def test_the_heads_that_a_checkpoint_records_count(tmp_path):
    six = SegHead(48, SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=6))
    config = {"head": {"heads": 6}}
    torch.save({"config": config, "momentum_seg_head": six.state_dict()}, tmp_path / "last.pth")
    assert load_seg_head(tmp_path / "last.pth").config == six.config
    assert load_seg_head(tmp_path / "last.pth", heads=12).config == six.config


def test_momentum_is_the_branch_that_is_read_by_default(tmp_path):
    online, momentum = head(), head()
    loaded = load_seg_head(save_published(tmp_path / "h.pth.tar", online, momentum))
    assert torch.equal(loaded.multi_scale_fuser.weight, momentum.multi_scale_fuser.weight)


def test_a_file_without_a_head_says_what_it_holds(tmp_path):
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"has no momentum_seg_head; it holds state_dict; epoch"):
        load_seg_head(tmp_path / "other.pth")


def test_an_incomplete_head_names_what_is_missing(tmp_path):
    torch.save({"momentum_seg_head": {"norm.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"no SegHead: multi_scale_fuser\.weight is missing"):
        load_seg_head(tmp_path / "other.pth")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_reads_a_published_linear_classifier(tmp_path, prefix):
    original = nn.Conv2d(24, 21, kernel_size=1)
    state = {prefix + key: value for key, value in original.state_dict().items()}
    torch.save({"linear_classifier": state, "epoch": 10}, tmp_path / "linear.pth.tar")
    loaded = load_linear_classifier(tmp_path / "linear.pth.tar")
    tokens = torch.randn(2, 24, 4, 5)
    assert torch.equal(loaded(tokens), original(tokens))


def test_a_classifier_that_is_no_1x1_convolution_is_refused(tmp_path):
    torch.save({"linear_classifier": nn.Linear(4, 2).state_dict()}, tmp_path / "linear.pth.tar")
    with pytest.raises(CheckpointError, match=r"no 1x1 convolution: weight is \(2, 4\)"):
        load_linear_classifier(tmp_path / "linear.pth.tar")
