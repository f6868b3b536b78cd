"""What a pretraining writes is a backbone that says how it was made."""

import pytest
import torch
from safetensors import safe_open

from hcl.models.backbones import BackboneConfig, build_backbone
from scripts import pretrain_tiny


def test_what_is_written_loads_and_tells_command_and_seed(tmp_path):
    path = tmp_path / "own.safetensors"
    settings = ["--steps=1", "--batch_size=4", "--scenes=4", "--seed=5", f"--output={path}"]
    assert pretrain_tiny.main(settings) == 0
    build_backbone(BackboneConfig("tiny", weights=str(path)))
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    assert facts["command"] == " ".join(["python scripts/pretrain_tiny.py", *settings])
    assert facts["seed"] == "5"
    assert f"torch {torch.__version__}" in facts["versions"]


def test_a_setting_that_does_not_exist_ends_the_program(capsys):
    with pytest.raises(SystemExit):
        pretrain_tiny.main(["--stepz=1"])
    assert "stepz" in capsys.readouterr().err
