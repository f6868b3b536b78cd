"""A run that was ended early and continued is, bit for bit, the run that was not."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hcl.commands import train
from hcl.distributed import World
from hcl.engine import bank_pass
from hcl.engine.bank_files import BankFiles
from hcl.engine.checkpoint import Checkpoints, load_checkpoint, write_state
from hcl.engine.learner import Learner
from hcl.models.backbones import BackboneConfig, build_backbone
from tests.engine.support import arguments, records, same, saved_state
from tests.faults.victim import Victim


def run_with_signal(settings: dict, number: signal.Signals, step: int) -> int | None:
    return Victim(settings, strike=("step", str(step), number.name)).finish()[0]


def losses(folder: str) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in records(folder, "step")]


@pytest.mark.parametrize("mode", ["epoch", "online"])
def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_same_bits(tiny_settings, tmp_path, mode):
    settings = tiny_settings | {"checkpoint_every": 1, "clustering.mode": mode}
    undisturbed = settings | {"output": str(tmp_path / "undisturbed")}
    assert train.main(arguments(undisturbed)) == 0

    assert run_with_signal(settings, signal.SIGKILL, step=6) == -signal.SIGKILL
    saved = saved_state(settings["output"])
    assert (saved["epoch"], saved["step"]) == (1, 2)
    assert train.main([*arguments(settings), "--resume"]) == 0

    assert same(saved_state(settings["output"]), saved_state(undisturbed["output"]))
    assert losses(settings["output"]) == losses(undisturbed["output"])


def test_sigterm_saves_and_exits(tiny_settings):
    assert run_with_signal(tiny_settings, signal.SIGTERM, step=5) == 143
    saved = saved_state(tiny_settings["output"])
    assert (saved["epoch"], saved["step"]) == (1, 2)


@pytest.mark.filterwarnings("error:Detected call of `lr_scheduler.step")
def test_sigterm_in_the_last_step_of_an_epoch_ends_the_epoch_first(tiny_settings, tmp_path):
    undisturbed = tiny_settings | {"output": str(tmp_path / "undisturbed")}
    assert train.main(arguments(undisturbed)) == 0
    assert run_with_signal(tiny_settings, signal.SIGTERM, step=3) == 143
    saved = saved_state(tiny_settings["output"])
    assert (saved["epoch"], saved["step"]) == (1, 0)
    assert train.main([*arguments(tiny_settings), "--resume"]) == 0
    assert same(saved_state(tiny_settings["output"]), saved_state(undisturbed["output"]))


def test_sigterm_in_the_very_last_step_leaves_a_run_that_is_done(tiny_settings):
    assert run_with_signal(tiny_settings, signal.SIGTERM, step=9) == 0
    assert saved_state(tiny_settings["output"])["epoch"] == 3


def test_no_rank_goes_on_before_all_have_read_the_checkpoint(tiny_settings, monkeypatch):
    """For the main rank may write another, which a slower one would take for the one to go on from."""
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    order = []
    for owner, name in ((BankFiles, "read"), (World, "any"), (Learner, "load_state_dict")):
        monkeypatch.setattr(owner, name, noting(order, name, getattr(owner, name)))
    assert train.main([*arguments(tiny_settings), "--resume"]) == 0
    assert order[order.index("read") :][:3] == ["read", "any", "load_state_dict"]


def noting(order: list[str], name: str, function):
    """The function, whose calls are noted by a name."""

    def noted(*positional, **named):
        order.append(name)
        return function(*positional, **named)

    return noted


def test_sigterm_in_the_bank_pass_ends_the_run_before_its_first_step(tiny_settings, monkeypatch):
    original = bank_pass.sample_tokens

    def sample_and_signal(*positional, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*positional, **named)

    monkeypatch.setattr(bank_pass, "sample_tokens", sample_and_signal)
    assert train.main(arguments(tiny_settings)) == 143
    assert losses(tiny_settings["output"]) == []


def test_a_folder_with_a_run_is_not_overwritten(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    assert train.main(arguments(settings)) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_run_that_is_done_says_so_when_it_is_resumed(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    capsys.readouterr()
    before = saved_state(settings["output"])
    assert train.main([*arguments(settings), "--resume"]) == 0
    checkpoint = Path(settings["output"]) / "checkpoint.pt"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"already reached epoch 1 of 1: its checkpoint is {checkpoint}; " in line
    assert same(saved_state(settings["output"]), before)


def test_resuming_with_other_settings_is_refused_by_name(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    assert train.main([*arguments(settings | {"optimiser.lr": 0.5}), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "optimiser.lr: 0.001 -> 0.5" in error
    assert "use those, or choose another --output" in error


def test_other_weights_of_the_backbone_are_refused(tiny_settings, tmp_path, capsys):
    state = build_backbone(BackboneConfig("tiny")).vit.state_dict()
    save_file(state, tmp_path / "same.safetensors")
    state["norm.bias"] = state["norm.bias"] + 1e-3
    save_file(state, tmp_path / "other.safetensors")
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    more = tiny_settings | {"epochs": 2}
    other = more | {"backbone.weights": str(tmp_path / "other.safetensors")}
    assert train.main([*arguments(other), "--resume"]) == 2
    assert "belongs to a run with other weights of tiny: give those" in capsys.readouterr().err
    same_weights = more | {"backbone.weights": str(tmp_path / "same.safetensors")}
    assert train.main([*arguments(same_weights), "--resume"]) == 0


def test_a_checkpoint_from_before_these_settings_is_continued(tiny_settings):
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    path = Path(tiny_settings["output"]) / "checkpoint.pt"
    state = load_checkpoint(path)
    for name in ("deterministic", "checkpoints_kept", "on_non_finite"):
        del state["config"][name]
    del state["config"]["clustering"]["k"], state["config"]["data"]["on_error"], state["backbone_digest"]
    state["optimizer"]["param_groups"][0]["fused"] = None
    Checkpoints(path.parent).save(state)
    assert train.main([*arguments(tiny_settings), "--resume"]) == 0
    assert saved_state(path.parent)["epoch"] == 3


def test_a_checkpoint_with_settings_from_elsewhere_is_refused_by_name(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    path = Path(settings["output"]) / "checkpoint.pt"
    state = load_checkpoint(path)
    state["config"]["invented"] = 1
    Checkpoints(path.parent).save(state)
    assert train.main([*arguments(settings), "--resume"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "invented" in error


def test_a_checkpoint_of_another_width_is_refused_by_key(tiny_settings, capsys):
    settings = tiny_settings | {"epochs": 1}
    assert train.main(arguments(settings)) == 0
    path = Path(settings["output"]) / "checkpoint.pt"
    state = load_checkpoint(path)
    state["online_seg_head"]["norm.weight"] = torch.ones(7)
    Checkpoints(path.parent).save(state)
    assert train.main([*arguments(settings), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "norm.weight" in error
    assert "(7,)" in error


def test_a_resumed_run_knows_how_good_its_best_epoch_was(tiny_settings):
    folder = Path(tiny_settings["output"])
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    state = load_checkpoint(folder / "checkpoint.pt")
    (folder / "checkpoint.pt").unlink()
    with (folder / "checkpoint.pt").open("wb") as file:
        write_state(state | {"best_loss": 0.0, "skipped_steps": 4}, file)
    assert train.main([*arguments(tiny_settings | {"epochs": 2}), "--resume"]) == 0
    state = load_checkpoint(folder / "checkpoint.pt")
    assert (state["epoch"], state["best_loss"], state["skipped_steps"]) == (2, 0, 4)
    assert load_checkpoint(folder / "best.pt")["epoch"] == 1
