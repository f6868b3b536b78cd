from pathlib import Path

import pytest
import torch

from hcl.commands import train
from hcl.engine.checkpoint import load_checkpoint
from hcl.engine.loss_record import LossRecord
from hcl.models.head_files import load_seg_head
from tests.engine.support import arguments, records

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_run_leaves_a_log_and_a_head_that_loads(tiny_settings, capsys):
    assert train.main(arguments(tiny_settings)) == 0
    checkpoint = Path(tiny_settings["output"]) / "checkpoint.pt"
    assert capsys.readouterr().err.endswith(f"written to {checkpoint}\n")
    steps = records(tiny_settings["output"], "step")
    assert [record["step"] for record in steps] == list(range(1, 10))
    assert [record["lr"] for record in steps[::3]] == pytest.approx([1e-3, 1e-3, 1e-4])
    assert len(records(tiny_settings["output"], "clustering")) == 3
    (start,) = records(tiny_settings["output"], "run")
    assert start["versions"]["torch"] == torch.__version__
    head = load_seg_head(checkpoint)
    assert head.config.heads == 2
    assert head.config.width == 24


def test_float32_is_not_rounded_in_convolutions(tiny_settings, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert train.main(arguments(tiny_settings | {"epochs": 1})) == 0
    assert not torch.backends.cudnn.allow_tf32


def test_training_lowers_the_loss(tiny_settings):
    settings = tiny_settings | {"epochs": 12, "clustering.mode": "online", "optimiser.milestones": "[]"}
    assert train.main(arguments(settings)) == 0
    losses = [record["loss"] for record in records(settings["output"], "step")]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_bf16_starts_from_the_loss_of_fp32(tiny_settings, tmp_path):
    first = []
    for precision in ("fp32", "bf16"):
        settings = tiny_settings | {
            "epochs": 1,
            "precision": precision,
            "output": str(tmp_path / precision),
            # A cluster more or less moves the loss further than a rounded product does.
            "clustering.foreground_clusters": 1,
            "clustering.background_clusters": 1,
        }
        assert train.main(arguments(settings)) == 0
        first.append(records(settings["output"], "step")[0]["loss_prediction"])
    assert first[1] == pytest.approx(first[0], rel=0.02)
    assert first[1] != first[0]


def test_accumulation_gives_the_same_losses_from_images_on(tiny_settings, tmp_path):
    runs = []
    for accumulation in (1, 2):
        settings = tiny_settings | {"accumulation": accumulation, "output": str(tmp_path / str(accumulation))}
        assert train.main(arguments(settings)) == 0
        runs.append([record["loss"] for record in records(settings["output"], "step")])
    torch.testing.assert_close(torch.tensor(runs[1]), torch.tensor(runs[0]), atol=1e-5, rtol=0)


def test_mlp_heads_train_too(tiny_settings):
    settings = tiny_settings | {"epochs": 1, "head.kind": "mlp"}
    assert train.main(arguments(settings)) == 0
    assert load_seg_head(Path(settings["output"]) / "checkpoint.pt", "online").config.kind == "mlp"


def test_a_preset_gives_way_to_the_command_line_wherever_it_stands(capsys):
    with pytest.raises(SystemExit):
        train.main(["--epochs=77", f"--config={CONFIGS / 'quickstart.yaml'}", "--print_config"])
    printed = capsys.readouterr().out
    assert "epochs: 77" in printed
    assert "name: tiny" in printed


@pytest.mark.parametrize("preset", sorted(CONFIGS.glob("[!q]*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_a_valid_configuration(preset):
    parser = train.build_parser()
    assert parser.parse_args([f"--config={preset}"]).backbone.name


def test_the_best_epoch_is_saved_as_such(tiny_settings, monkeypatch):
    is_best = iter([False, True, False])
    monkeypatch.setattr(LossRecord, "end_epoch", lambda record: next(is_best))
    assert train.main(arguments(tiny_settings)) == 0
    assert load_checkpoint(Path(tiny_settings["output"]) / "best.pt")["epoch"] == 2
