"""The commands on photographs in the command line: help, and one line for what cannot be."""

import pytest

from hcl.commands import evaluate


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("segment", ["photographs", "--clusters", "--classifier", "--crf", "--on_error", "--resume"]),
        ("components", ["--points", "--queries", "--data.kind", "--match"]),
    ],
)
def test_help_explains_every_setting(command, flags, capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluate.main([command, "--help"])
    text = capsys.readouterr().out
    for flag in (*flags, "--checkpoint", "--backbone.name", "--backbone.weights", "--output", "--size"):
        assert flag in text


def test_a_preset_may_hold_the_settings(checkpoint, photographs, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"checkpoint: {checkpoint}\nsize: 64\nclusters: 4\noutput: {tmp_path / 'out'}\n")
    command = ["segment", str(photographs[0]), "--config", str(preset), "--device", "cpu"]
    assert evaluate.main(command) == 0
    assert (tmp_path / "out" / "labels" / f"{photographs[0].stem}.png").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--checkpoint", "none.pt"], "there is no checkpoint file none.pt"),
        (["--checkpoint", "none.pt", "--clusters", "1"], "clusters is 1; it must be at least 2"),
        (["--checkpoint", "none.pt", "--batch_size", "0"], "batch_size is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(photographs, capsys, settings, message):
    assert evaluate.main(["segment", str(photographs[0]), *settings]) == 2
    assert f"evaluate.py: {message}\n" == capsys.readouterr().err


def test_the_folder_of_a_run_is_told_what_to_give_instead(checkpoint, photographs, capsys):
    assert evaluate.main(["segment", str(photographs[0]), "--checkpoint", str(checkpoint.parent)]) == 2
    expected = f"evaluate.py: {checkpoint.parent} is the folder of a run: give its checkpoint {checkpoint}\n"
    assert capsys.readouterr().err == expected
