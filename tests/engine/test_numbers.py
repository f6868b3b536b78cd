"""NaN, infinity and degenerate data: train through, or end in a sentence."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hcl.clustering.mogo import ClusteringConfig, MoGoClustering
from hcl.commands import train
from hcl.distributed import World
from hcl.engine import non_finite, targets
from hcl.engine.checkpoint import load_checkpoint
from hcl.engine.loss_record import FailedStep
from hcl.engine.non_finite import replay
from pipelines.training_views import TrainingViews
from tests.clustering.support import image_rows
from tests.engine.support import ALONE, arguments, records, saved_state

ROOT = Path(__file__).parents[2]


@pytest.fixture
def poisoned(monkeypatch):
    """Image 5 has a NaN in a view wherever it is trained on: view 1 or 2."""

    def poison(view: int) -> None:
        original = TrainingViews.batches

        def with_nan(self, *positional, **named):
            for batch in original(self, *positional, **named):
                if 5 in batch.indices and len(batch.views) == 2:
                    batch.views[view - 1][list(batch.indices).index(5), 0, 0, 0] = torch.nan
                yield batch

        monkeypatch.setattr(TrainingViews, "batches", with_nan)

    return poison


def all_finite(state) -> bool:
    if isinstance(state, torch.Tensor):
        return bool(state.isfinite().all())
    if isinstance(state, dict):
        return all(map(all_finite, state.values()))
    return not isinstance(state, (list, tuple)) or all(map(all_finite, state))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_nan_stops_the_run_with_a_dump_that_computes_it_again(
    tiny_settings, poisoned, capsys, monkeypatch, accumulation
):
    poisoned(2)
    settings = tiny_settings | {"log_every": 3, "accumulation": accumulation}
    assert train.main(arguments(settings)) == 2
    error = capsys.readouterr().err
    (dump,) = Path(settings["output"]).glob("non_finite_step_*.pt")
    assert str(dump) in error
    assert "train_00005" in error

    monkeypatch.undo()
    content = load_checkpoint(dump)
    assert "train_00005" in content["images"][5]
    assert 1 <= content["failed_step"] <= 3
    assert len(content["views"]) == accumulation
    again = replay(dump)
    assert {name: float(value) for name, value in again._asdict().items()} == pytest.approx(
        content["losses"], nan_ok=True, abs=0, rel=0
    )
    assert again.total.isnan()


def test_a_dump_of_an_fp8_run_is_computed_again_without_a_gpu_for_it(
    tiny_settings, poisoned, monkeypatch, tmp_path
):
    poisoned(2)
    assert train.main(arguments(tiny_settings | {"precision": "bf16"})) == 2
    monkeypatch.undo()
    (dump,) = Path(tiny_settings["output"]).glob("non_finite_step_*.pt")
    content = load_checkpoint(dump)
    content["config"]["precision"] = "fp8"
    torch.save(content, tmp_path / "fp8.pt")
    assert replay(tmp_path / "fp8.pt").total.isnan()


def test_a_dump_holds_the_weights_that_the_failed_step_saw(tiny_settings, poisoned, tmp_path):
    """Those of a run that takes note at once, although this one goes on to the end of the epoch."""
    poisoned(1)
    dumps = []
    for log_every in (1, 3):
        settings = tiny_settings | {"log_every": log_every, "output": str(tmp_path / str(log_every))}
        settings |= {"clustering.mode": "online", "batch_size": 3}
        assert train.main(arguments(settings)) == 2
        (path,) = Path(settings["output"]).glob("non_finite_*.pt")
        dumps.append(load_checkpoint(path))
    assert dumps[0]["failed_step"] == dumps[1]["failed_step"]
    for name in ("online_seg_head", "momentum_seg_head", "predictor"):
        for key, weight in dumps[0][name].items():
            assert torch.equal(weight, dumps[1][name][key]), key
    assert torch.equal(dumps[0]["centroids_foreground"], dumps[1]["centroids_foreground"])


def test_a_dump_is_computed_again_by_its_command(tiny_settings, poisoned):
    poisoned(1)
    assert train.main(arguments(tiny_settings)) == 2
    (dump,) = Path(tiny_settings["output"]).glob("non_finite_*.pt")
    command = [sys.executable, "-m", "hcl.engine.non_finite", str(dump)]
    printed = subprocess.run(
        command, cwd=ROOT, check=True, timeout=120, capture_output=True, text=True
    ).stdout
    assert "total nan" in printed


def test_what_is_no_dump_is_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["non_finite", str(tmp_path / "nothing.pt")])
    assert non_finite._main() == 2
    assert f"there is no checkpoint file {tmp_path / 'nothing.pt'}" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["epoch", "online"])
@pytest.mark.parametrize("view", [1, 2])
def test_steps_that_are_not_finite_are_skipped_and_counted(tiny_settings, poisoned, capsys, mode, view):
    poisoned(view)
    settings = tiny_settings | {"on_non_finite": "skip", "clustering.mode": mode, "log_every": 2}
    assert train.main(arguments(settings)) == 0
    error = capsys.readouterr().err
    assert "3 of 9 steps were skipped because they were not finite" in error.splitlines()
    assert error.count("train_00005") == 3
    assert sum(record.get("skipped", 0) for record in records(settings["output"])) == 3
    state = saved_state(settings["output"])
    assert state.pop("skipped_steps") == 3
    assert all_finite(state)
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {6}


def test_an_epoch_without_a_finite_step_ends_the_run(tiny_settings, poisoned, capsys):
    poisoned(1)
    settings = tiny_settings | {"on_non_finite": "skip", "batch_size": 12}
    assert train.main(arguments(settings)) == 2
    assert "no step of a whole epoch was finite, so all of them were skipped" in capsys.readouterr().err
    assert not (Path(settings["output"]) / "checkpoint.pt").exists()


def test_weights_that_blow_up_are_never_saved(tiny_settings, capsys):
    settings = tiny_settings | {"optimiser.lr": 1e30, "checkpoint_every": 1}
    assert train.main(arguments(settings)) == 2
    assert "not finite" in capsys.readouterr().err
    saved = list(Path(settings["output"]).glob("*.pt"))
    assert Path(settings["output"]) / "checkpoint.pt" in saved
    for path in saved:
        weights = load_checkpoint(path)
        assert all_finite([weights["online_seg_head"], weights["momentum_seg_head"], weights["predictor"]])


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_left_out(golden_training):
    _, model, step, views = golden_training()
    parameter = model.online.predictor.get_parameter(next(iter(model.online.predictor.state_dict())))
    parameter.register_hook(lambda gradient: gradient * torch.inf)
    before = {name: value.clone() for name, value in model.online.state_dict().items()}
    losses, applied, _ = step([views(0)])
    assert all(loss.isfinite() for loss in losses)
    assert not applied
    assert all(torch.equal(value, before[name]) for name, value in model.online.state_dict().items())


def test_a_bank_that_is_not_finite_is_an_error_with_its_numbers():
    mogo = MoGoClustering(ClusteringConfig(foreground_clusters=2, background_clusters=2), seed=7, world=ALONE)
    rows = torch.ones(6, 4)
    rows[2:4, 1] = torch.nan
    with pytest.raises(FloatingPointError, match=r"2 of the 6 background tokens before epoch 1"):
        mogo.refresh(0, [(image_rows(torch.randn(5, 4)), image_rows(rows))])


def test_clusters_shrink_to_a_small_bank_where_that_is_wanted(tiny_settings, capsys):
    settings = tiny_settings | {"clustering.k": "auto", "clustering.foreground_clusters": 1000}
    assert train.main(arguments(settings)) == 0
    rows = [record["foreground_rows"] for record in records(settings["output"], "clustering")]
    used = [record["foreground_clusters"] for record in records(settings["output"], "clustering")]
    assert used == rows
    assert f"only {rows[0]} clusters" in capsys.readouterr().err
    assert len(saved_state(settings["output"])["centroids_background"]) == 4


@pytest.mark.parametrize("k", ["fixed", "auto"])
def test_no_foreground_at_all_ends_in_a_sentence(tiny_settings, monkeypatch, capsys, k):
    mask = targets.foreground_mask
    monkeypatch.setattr(targets, "foreground_mask", lambda *both: torch.zeros_like(mask(*both)))
    assert train.main(arguments(tiny_settings | {"clustering.k": k})) == 2
    assert "the foreground bank has no tokens" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_steps_without_foreground_train_through(tiny_settings, monkeypatch, mode):
    """The bank pass sees foreground, the batches do not."""
    original = TrainingViews.batches
    training = False

    def batches(self, *positional, **named):
        nonlocal training
        training = len(named["views"]) == 2
        return original(self, *positional, **named)

    mask = targets.foreground_mask
    monkeypatch.setattr(TrainingViews, "batches", batches)
    monkeypatch.setattr(
        targets,
        "foreground_mask",
        lambda *both: torch.zeros_like(mask(*both)) if training else mask(*both),
    )
    settings = tiny_settings | {"clustering.mode": mode, "clustering.reseed_after": 2}
    assert train.main(arguments(settings)) == 0
    assert all(record["loss_fg"] == 0 for record in records(settings["output"], "step"))
    assert all_finite(saved_state(settings["output"]))


@pytest.mark.parametrize("images", ["black", "one picture"])
@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_images_that_are_all_the_same_train_through(tiny_settings, tmp_path, images, mode):
    """Tokens are equal or nearly so, and most clusters die."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    noise = np.random.default_rng(7).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    picture = Image.fromarray(noise if images == "one picture" else np.zeros_like(noise))
    for number in range(8):
        picture.save(folder / f"{number}.png")
    settings = tiny_settings | {"data.kind": "folder", "data.root": str(folder), "clustering.mode": mode}
    del settings["data.split"]
    settings |= {"clustering.foreground_clusters": 40, "clustering.k": "auto", "clustering.reseed_after": 2}
    assert train.main(arguments(settings)) == 0
    assert all_finite(saved_state(settings["output"]))


@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_tokens_that_are_all_equal_train_through(tiny_settings, monkeypatch, mode):
    monkeypatch.setattr(TrainingViews, "batches", _of_zeros(TrainingViews.batches))
    settings = tiny_settings | {"clustering.mode": mode, "clustering.reseed_after": 2}
    assert train.main(arguments(settings)) == 0
    assert all_finite(saved_state(settings["output"]))


def _of_zeros(original):
    def batches(self, *positional, **named):
        for batch in original(self, *positional, **named):
            yield batch._replace(views=tuple(torch.zeros_like(view) for view in batch.views))

    return batches


@pytest.mark.parametrize(("ranks", "name"), [(1, "non_finite_step_3.pt"), (2, "non_finite_step_3_rank_0.pt")])
def test_every_rank_dumps_into_a_file_of_its_own(tmp_path, ranks, name):
    learner = SimpleNamespace(world=World(0, ranks, torch.device("cpu")), state_dict=dict)
    assert non_finite.dump(learner, FailedStep(3, {}), {}, [], tmp_path) == tmp_path / name
