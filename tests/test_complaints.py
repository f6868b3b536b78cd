"""What a newcomer reads after a typical mistake: one line with the way out, and exit status 2."""

import pytest

from hcl.commands import evaluate, train
from hcl.export.__main__ import main as export

DATA = ["--data.kind", "scenes", "--data.root", "scenes", "--data.split", "val"]


def complaint(command, arguments, capsys) -> str:
    """The one line on stderr; nothing on stdout."""
    try:
        status = command(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data.kind and --data.root are missing (see python train.py --help"),
        (["--data.kind", "voc"], "train.py: --data.root is missing ("),
        ([*DATA, "--epohcs", "3"], "there is no setting --epohcs; did you mean --epochs?"),
        ([*DATA, "--batch-size=3"], "there is no setting --batch-size; did you mean --batch_size?"),
        ([*DATA, "--lr", "0.1"], "there is no setting --lr; did you mean --optimiser.lr?"),
        ([*DATA, "--ep", "3"], "there is no setting --ep; did you mean --epochs?"),
        ([*DATA, "--xyzzy", "0.1"], "there is no setting --xyzzy ("),
        ([*DATA, "resume"], "unexpected argument 'resume': give settings as --NAME VALUE"),
        ([*DATA, "--epochs", "three"], "--epochs is three; it must be a whole number"),
        ([*DATA, "--optimiser.lr", "high"], "--optimiser.lr is high; it must be a number"),
        ([*DATA, "--device", "gpu"], "--device is gpu; it must be auto, cpu or cuda"),
        ([*DATA, "--compile", "maybe"], "--compile is maybe; it must be true or false or max-autotune"),
        ([*DATA, "--optimiser.milestones", "3,5"], "it must be a list in brackets, such as [2,5]"),
        (
            [*DATA, "--config", "voc"],
            "there is no configuration voc: give a YAML file, or one of the presets ",
        ),
    ],
)
def test_training_says_what_to_do(arguments, message, capsys):
    assert message in complaint(train.main, arguments, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: 3\n  bad: [", "the configuration is not valid YAML: "),
        (
            "epohcs: 3\n",
            "sets epohcs, which is not a setting of this command; did you mean epochs?",
        ),
        ("hello", "the configuration must map settings to values, but it is 'hello'"),
    ],
)
def test_a_configuration_that_is_none_is_told(content, message, capsys, tmp_path):
    (tmp_path / "c.yaml").write_text(content)
    assert message in complaint(train.main, [*DATA, "--config", str(tmp_path / "c.yaml")], capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command is given; choose one of linear-probe, linear, overcluster, "),
        (["baseline"], "no command is given; choose one of linear-probe, overcluster, "),
        (["overclustr", *DATA], "there is no command 'overclustr'; did you mean overcluster?"),
        (
            ["baseline", "foreground"],
            "there is no command 'foreground'; choose one of linear-probe, ",
        ),
        (["overcluster"], "--data.kind and --data.root are missing"),
        (["baseline", "cluster"], "--data.kind and --data.root are missing"),
        (
            ["cluster", "--data.kind", "voc"],
            "evaluate.py cluster: --data.root is missing (see python ",
        ),
        (
            ["segment"],
            "evaluate.py segment: PHOTOGRAPHS and --checkpoint are missing (see python evaluate.py s",
        ),
        (["report"], "evaluate.py report: RUN is missing (see python evaluate.py report --help)"),
        (["components", "--checkpoint", "c.pt", "--data.root", "d"], "evaluate.py: --data.kind is missing ("),
        (["report", "run", "--data.root", "d"], "--data.kind is missing ("),
        (["report", "run", "--data.kind", "voc"], "--data.root is missing ("),
        (
            ["report", "run", "--data.kind", "vc"],
            "--data.kind is vc; it must be voc, coco, folder or scenes (",
        ),
        (
            ["report", "run", "--data.kind", "voc", "--data.root", "d"],
            "evaluate.py: a data set of kind 'voc' needs a split: give one, such as --data.split train",
        ),
        (["linear", *DATA], "--classifier is missing"),
        (
            ["cluster", *DATA, "--checkpont", "x"],
            "no setting --checkpont; did you mean --checkpoint?",
        ),
        (
            ["segment", "photographs", "--checkpoint", "x", "--cluster", "12"],
            "no setting --cluster; did you mean --clusters?",
        ),
        (
            ["foreground", *DATA, "--keep_mass", "0.6"],
            "--keep_mass is 0.6; it must be a list in brackets, such as [0.5,0.7]",
        ),
        (
            ["overcluster", *DATA, "--clusters", "many"],
            "--clusters is many; it must be a whole number or a list in brackets, such as [2,5]",
        ),
    ],
)
def test_evaluation_says_what_to_do(arguments, message, capsys):
    assert message in complaint(evaluate.main, arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--checkpoint is missing"),
        (["--check", "c.pt"], "there is no setting --check; did you mean --checkpoint?"),
        (["--checkpoint", "c.pt", "--config", "voc_vits16"], "there is no setting --config ("),
        (
            ["--checkpoint", "c.pt", "--forms", "onnx"],
            "--forms is onnx; it must be a list of pt2, onnx, hub in brackets, such as [pt2,onnx]",
        ),
    ],
)
def test_export_says_what_to_do(arguments, message, capsys):
    assert message in complaint(export, arguments, capsys)


@pytest.mark.parametrize("command", [train.main, evaluate.main, export])
def test_usage_is_short(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        command(["--help"])
    usage = capsys.readouterr().out.split("\n\n")[0]
    assert usage.startswith("usage: ")
    assert len(usage.splitlines()) <= 2


def test_help_leaves_out_what_says_nothing(capsys):
    with pytest.raises(SystemExit, match="0"):
        train.main(["--help"])
    text = capsys.readouterr().out
    for noise in ("Literal[", "Path to a configuration file", "default: null", "default: )"):
        assert noise not in text
    assert "default: auto" in text
