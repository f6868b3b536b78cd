"""A pretraining of a few steps learns, and what it writes is a backbone that says how it was made."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hcl.models.backbones import BackboneConfig, build_backbone
from scripts import pretrain_tiny
from scripts.pretrain_tiny import PretrainConfig, balanced, crop, draw_masks, pretrain, rarity, recolour

FEW_STEPS = PretrainConfig(steps=24, batch_size=16, scenes=16, warmup=4, prototypes=8, global_size=64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_few_steps_lower_every_loss():
    _, record = pretrain(FEW_STEPS)
    for name in ("loss", "cls", "patches", "attention"):
        losses = [step[name] for step in record]
        assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_the_same_seed_gives_the_same_weights():
    short = PretrainConfig(steps=2, batch_size=4, scenes=4, prototypes=8, global_size=64)
    first, second = (pretrain(short)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


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


def test_targets_use_all_prototypes_alike():
    cosines = torch.rand(64, 8, generator=generator())
    cosines[:, 0] += 1.0  # without balance, everything would be the first
    targets = balanced(cosines, rounds=50)
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    torch.testing.assert_close(targets.mean(0), torch.full((8,), 1 / 8), atol=1e-3, rtol=0)


def test_the_rare_patch_is_where_to_look():
    patches = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat(4, 9, 1)
    patches[2, 5] = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    patches += 1e-3 * torch.randn(patches.shape, generator=generator())
    wanted = rarity(patches, generator())
    torch.testing.assert_close(wanted.sum(1), torch.ones(4))
    assert wanted[2].argmax() == 5
    assert wanted[2, 5] > 0.99


def test_views_are_parts_of_the_image_in_other_colours():
    images = torch.rand(5, 3, 32, 32, generator=generator())
    views = crop(images, 16, (0.3, 1.0), generator())
    assert views.shape == (5, 3, 16, 16)
    assert images.min() <= views.min()
    assert views.max() <= images.max()
    recoloured = recolour(views, generator())
    assert recoloured.shape == views.shape
    assert not torch.equal(recoloured, views)
    assert recoloured.min() >= 0
    assert recoloured.max() <= 1


def test_every_other_image_is_masked():
    masks = draw_masks(6, 50, generator())
    assert not masks[::2].any()
    assert masks[1::2].any(dim=1).all()


def test_a_setting_that_does_not_exist_ends_the_program(capsys):
    with pytest.raises(SystemExit):
        pretrain_tiny.main(["--stepz=1"])
    assert "stepz" in capsys.readouterr().err
