"""Banks from what training computed against banks from a pass of their own."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hcl.clustering.mogo import ClusteringConfig
from hcl.commands import train
from hcl.data.dataset import DataConfig
from hcl.distributed import World
from hcl.engine import bank_pass
from hcl.engine.batches import Batches
from hcl.engine.config import TrainConfig
from hcl.models.backbones import BackboneConfig, build_backbone
from hcl.models.pm_vit import LevelTokens, PMViT
from pipelines.draws import ViewsConfig
from tests.engine.support import ALONE, arguments, records, saved_state

NAMES = [f"{what}_{side}" for what in ("bank", "centroids") for side in ("foreground", "background")]


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """How many images each call of the backbone gets."""
    images = []
    forward = PMViT.forward

    def counting(self, batch):
        images.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(PMViT, "forward", counting)
    return images


def run(settings: dict, folder: Path, **others) -> dict:
    settings = settings | {"output": str(folder)} | {name.replace("__", "."): v for name, v in others.items()}
    assert train.main([*arguments(settings), "--resume"]) == 0
    return saved_state(folder)


@pytest.mark.parametrize(("accumulation", "batch_size"), [(1, 4), (2, 4), (1, 5)])
def test_kept_levels_give_the_banks_of_a_pass_and_spare_the_backbone(
    tiny_settings, tmp_path, seen, accumulation, batch_size
):
    """With batches of 5 two of the 12 images are in no batch of an epoch."""
    settings = tiny_settings | {"accumulation": accumulation, "batch_size": batch_size}
    if batch_size == 5:
        settings["epochs"] = 4
    passed = run(settings, tmp_path / "passed", clustering__reuse="never")
    views_before = sum(seen)
    seen.clear()
    kept = run(settings, tmp_path / "kept", clustering__reuse="always")
    trained = 12 // batch_size * batch_size
    epochs = settings["epochs"]
    assert views_before == epochs * (12 + 2 * trained)
    assert sum(seen) == 12 + epochs * 2 * trained + (epochs - 1) * (12 - trained)
    assert views_before / sum(seen) >= 1.2
    for name in NAMES:
        torch.testing.assert_close(kept[name], passed[name], atol=2e-6, rtol=0)


def test_levels_are_kept_where_they_fit(tiny_settings, tmp_path, monkeypatch, capsys):
    run(tiny_settings | {"epochs": 1}, tmp_path / "roomy")
    assert "token banks come from the tokens of training: a rank's levels take 0.00 GiB" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr(bank_pass, "free_memory", lambda device: 1000)
    run(tiny_settings | {"epochs": 1}, tmp_path / "narrow")
    assert "a separate pass over the images: a rank's levels" in capsys.readouterr().err


def test_a_resumed_run_goes_on_as_it_began(tiny_settings, tmp_path, monkeypatch, seen, capsys):
    run(tiny_settings | {"epochs": 2}, tmp_path / "run")
    monkeypatch.setattr(bank_pass, "SHARE_OF_FREE_MEMORY", 0)
    seen.clear()
    run(tiny_settings, tmp_path / "run")
    assert "the resumed run did so; a rank's levels take 0.00 GiB" in capsys.readouterr().err
    # The bank pass of the third epoch sees both views again, as in training.
    assert sum(seen) == 24 + 24


def test_a_resumed_run_keeps_no_more_than_there_is_memory_for(tiny_settings, tmp_path, monkeypatch, seen):
    run(tiny_settings | {"epochs": 2}, tmp_path / "run")
    monkeypatch.setattr(bank_pass, "free_memory", lambda device: 1000)
    seen.clear()
    assert not run(tiny_settings, tmp_path / "run")["bank_reuses"]
    assert sum(seen) == 12 + 24


def test_a_setting_outweighs_what_the_run_did_before(tiny_settings, tmp_path, seen):
    run(tiny_settings | {"epochs": 2}, tmp_path / "run")
    seen.clear()
    assert not run(tiny_settings, tmp_path / "run", clustering__reuse="never")["bank_reuses"]
    assert sum(seen) == 12 + 24


def test_the_online_mode_keeps_nothing(tiny_settings, tmp_path, seen):
    run(tiny_settings, tmp_path / "run", clustering__mode="online", clustering__reuse="always")
    assert sum(seen) == 12 + 3 * 24


def test_a_bank_of_some_images_looks_at_no_others(tiny_settings, tmp_path, seen, capsys):
    kept = run(tiny_settings, tmp_path / "run", clustering__bank_images=5)
    assert sum(seen) == 3 * (5 + 24)
    assert "they are made from 5 of the 12 images" in capsys.readouterr().err
    # A tiny view has 16 cells, all of which enter.
    assert len(kept["bank_foreground"]) + len(kept["bank_background"]) == 5 * 16


def test_a_bank_of_some_images_must_have_one_for_every_rank(tiny_settings, tmp_path):
    config = TrainConfig(data=DataConfig("folder", str(tmp_path)), clustering=ClusteringConfig(bank_images=1))
    ranks = World(0, 2, torch.device("cpu"))
    batches = Batches(images=12, batch_size=4, accumulation=1, seed=0, world=ranks)
    learner = SimpleNamespace(world=ranks)
    with pytest.raises(ValueError, match="bank_images is 1, but 2 ranks need at least one image each"):
        bank_pass.BankPass(config, learner, batches, None)


def test_a_bank_of_some_images_cannot_reuse_what_training_computed():
    with pytest.raises(ValueError, match=r"reuse cannot be always with clustering\.bank_images"):
        ClusteringConfig(bank_images=5, reuse="always")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kept_levels_are_those_that_the_backbone_would_give_again_to_the_bit(
    tiny_settings, tmp_path, monkeypatch, seen, precision
):
    settings = tiny_settings | {"precision": precision, "clustering.reuse": "always"}
    kept = run(settings, tmp_path / "kept")
    monkeypatch.setattr(bank_pass.BankPass, "keep", lambda *_: None)
    seen.clear()
    again = run(settings, tmp_path / "again")
    assert sum(seen) == 12 + 5 * 24
    assert all(torch.equal(kept[name], again[name]) for name in NAMES)


def test_the_log_tells_where_banks_come_from(tiny_settings, tmp_path):
    run(tiny_settings, tmp_path / "run")
    banks = [record["reused"] for record in records(tmp_path / "run", "clustering")]
    assert banks == [False, True, True]


@pytest.fixture
def on_tiny() -> Callable[..., bank_pass.BankPass]:
    """Makes a bank pass of 12 images of 64 pixels in batches of 4, on the tiny backbone."""
    learner = SimpleNamespace(model=SimpleNamespace(backbone=build_backbone(BackboneConfig("tiny"))))

    def make(world: World = ALONE, **clustering) -> bank_pass.BankPass:
        config = TrainConfig(
            **{"data": DataConfig("folder", "x"), "batch_size": 4, "views": ViewsConfig(size=64)},
            clustering=ClusteringConfig(**clustering),
        )
        learner.world = world
        return bank_pass.BankPass(config, learner, Batches(12, 4, 1, 0, world), None)

    return make


def test_levels_are_kept_where_they_fit_into_half_of_what_is_free(on_tiny, monkeypatch):
    tokens = (1 + 16) + (1 + 4) + (1 + 1)
    needed = 12 * (tokens * 96 + 3 * 16) * 4
    for free, fits in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(bank_pass, "free_memory", lambda device, free=free: free)
        assert on_tiny().reuses == fits


def test_a_bank_of_as_many_images_as_ranks_has_one_for_each(on_tiny):
    assert on_tiny(World(1, 2, torch.device("cpu")), bank_images=2).images == 2


def test_kept_levels_hold_no_more_than_themselves(on_tiny):
    """What they are copied from lies where the next step writes its own, if steps are replayed."""
    both = torch.randn(8, 17, 96), torch.randn(8, 3, 4, 4)
    levels = LevelTokens((both[0][4:],), ((4, 4),), both[1][4:])
    kept = on_tiny(reuse="always")._compact(levels)
    for own, whole in zip((*kept.sequences, kept.cls_attention), both, strict=True):
        assert torch.equal(own, whole[4:])
        assert own.untyped_storage().nbytes() == whole.nbytes // 2


def test_every_bank_samples_anew(tiny_settings, tmp_path, monkeypatch):
    drawn, sample = [], bank_pass.sample_tokens

    def noted(*given, draw: int, **settings):
        drawn.append(draw)
        return sample(*given, draw=draw, **settings)

    monkeypatch.setattr(bank_pass, "sample_tokens", noted)
    run(tiny_settings, tmp_path / "run", clustering__sample_share=0.5)
    assert sorted(set(drawn)) == [0, 1, 2]
