"""The weights that the project ships: how they were made, and that their attention finds objects."""

import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hcl.data.scenes import draw_scene
from hcl.models.backbones import BACKBONES, TINY_WEIGHTS, BackboneConfig, build_backbone
from kernels.foreground import foreground_mask
from pipelines.normalise import MEAN, STD

ROOT = Path(__file__).parents[2]
SCENES = 12


@cache
def unseen_scenes() -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images (B, 3, 224, 224), and which cells of a 14x14 grid are objects at their centre."""
    pixels, classes = zip(
        *(draw_scene(224, np.random.default_rng([12345, i])) for i in range(SCENES)), strict=True
    )
    images = (np.stack(pixels) / 255 - MEAN) / STD
    return torch.from_numpy(images).permute(0, 3, 1, 2).float(), torch.from_numpy(
        np.stack(classes)[:, 8::16, 8::16] > 0
    )


def jaccard(maps: torch.Tensor) -> float:
    """Of foreground maps (B, 14, 14) with the objects of the scenes, all cells together."""
    objects = unseen_scenes()[1]
    return ((maps & objects).sum() / (maps | objects).sum()).item()


def attention_jaccard(name: str) -> float:
    with torch.inference_mode():
        levels = build_backbone(BackboneConfig(name))(unseen_scenes()[0])
    return jaccard(foreground_mask(levels.cls_attention, 0.65))


def test_its_attention_finds_objects_better_than_random_weights_and_than_everything():
    everything = jaccard(torch.ones(SCENES, 14, 14, dtype=torch.bool))
    assert attention_jaccard("tiny") > 1.4 * max(attention_jaccard("tiny_random"), everything)


def test_the_file_says_how_it_was_made():
    with safe_open(TINY_WEIGHTS, framework="pt") as file:
        facts = file.metadata()
    assert facts["command"].startswith("python scripts/pretrain_tiny.py")
    assert facts["seed"].isdecimal()
    assert int(facts["steps"]) > 0
    assert int(facts["wall_seconds"]) > 0
    assert "torch" in facts["versions"]


def test_the_file_holds_this_backbone_in_half_precision_and_is_small():
    assert TINY_WEIGHTS.stat().st_size < 4e6
    with safe_open(TINY_WEIGHTS, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert build_backbone(BackboneConfig("tiny")).embed_dim == BACKBONES["tiny"].vit.width


def test_random_weights_differ_from_it():
    tiny, random = (build_backbone(BackboneConfig(name)).vit for name in ("tiny", "tiny_random"))
    assert tiny.state_dict().keys() == random.state_dict().keys()
    assert not torch.equal(tiny.cls_token, random.cls_token)


BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


def test_the_wheel_holds_the_file(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml asks for this version")
    source = tmp_path / "source"
    for folder in ("hcl", "kernels", "pipelines"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run([sys.executable, "-c", BUILD, tmp_path], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]) as wheel:
        assert wheel.read("hcl/models/tiny.safetensors") == TINY_WEIGHTS.read_bytes()
