"""The output of an evaluation: refused before there is work to lose, and never another's."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hcl.commands import evaluate
from hcl.evaluation import overclustering, report
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from hcl.evaluation.tokens import untrained_head
from tests.evaluation.conftest import QUICK, SMALL_HEAD


@pytest.fixture
def no_work(monkeypatch) -> None:
    """Whoever opens data fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("images were opened")

    monkeypatch.setattr(overclustering, "open_labelled", refuse)


@pytest.fixture
def scoring(command) -> list[str]:
    return ["cluster", *command, *QUICK["cluster"]]


def head(folder: Path, backbone, seed: int) -> str:
    path = folder / f"head{seed}.pt"
    torch.save({"momentum_seg_head": untrained_head(backbone, SMALL_HEAD, seed).state_dict()}, path)
    return str(path)


@pytest.mark.parametrize("below", ["", "deep/down"])
def test_an_output_that_cannot_be_written_is_refused_first(scoring, tmp_path, capsys, no_work, below):
    (tmp_path / "file").write_text("no folder")
    output = tmp_path / "file" / below
    assert evaluate.main([*scoring, "--output", str(output)]) == 2
    refusal = f"the output folder {output} cannot be written to (Not a directory): choose another --output"
    assert capsys.readouterr().err == f"evaluate.py: {refusal}\n"


def test_another_heads_numbers_are_kept(scoring, tmp_path, backbone, capsys, request):
    first, second = (head(tmp_path, backbone, seed) for seed in (1, 2))
    assert evaluate.main([*scoring, "--checkpoint", first]) == 0
    written = (tmp_path / "out" / "metrics.json").read_bytes()
    request.getfixturevalue("no_work")
    assert evaluate.main([*scoring, "--checkpoint", second]) == 2
    error = capsys.readouterr().err
    assert (
        f"holds the results of other settings (checkpoint: {first!r} -> {second!r}; digests.head: " in error
    )
    assert evaluate.main(["overcluster", *scoring[1:], "--clusters=6", "--checkpoint", first]) == 2
    assert "protocol: 'cluster' -> 'overcluster'" in capsys.readouterr().err
    assert (tmp_path / "out" / "metrics.json").read_bytes() == written


def test_numbers_are_kept_where_files_hold_something_else_now(command, tmp_path, backbone, capsys):
    for seed in (1, 2):
        save_classifier(untrained_classifier(24, 6, seed=seed), tmp_path / f"classifier{seed}.pth.tar")
    given, classifier = Path(head(tmp_path, backbone, 1)), tmp_path / "classifier1.pth.tar"
    scoring = ["linear", *command, "--checkpoint", str(given), "--classifier", str(classifier)]
    for _ in range(2):
        assert evaluate.main(scoring) == 0
    Path(head(tmp_path, backbone, 2)).replace(given)
    assert evaluate.main(scoring) == 2
    assert "of other settings (digests.head: " in capsys.readouterr().err
    assert evaluate.main([*scoring, "--overwrite"]) == 0
    (tmp_path / "classifier2.pth.tar").replace(classifier)
    assert evaluate.main(scoring) == 2
    assert "of other settings (digests.classifier: " in capsys.readouterr().err


def test_the_same_settings_may_run_again_and_others_overwrite_when_told(scoring, tmp_path):
    for more in ([], ["--threads", "1"], ["--seeds", "1", "--overwrite"], ["--seeds", "1"]):
        assert evaluate.main([*scoring, *more]) == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["settings"]["seeds"] == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"protocol": "cluster", "settings": 3}'])
def test_a_file_that_does_not_say_what_it_is_stays(scoring, tmp_path, capsys, no_work, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text(content)
    assert evaluate.main(scoring) == 2
    assert "does not record the settings of its results: choose another --output" in capsys.readouterr().err


def test_numbers_are_shown_although_they_cannot_be_written(scoring, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "metrics.json")

    monkeypatch.setattr(report, "written_whole", full)
    assert evaluate.main(scoring) == 2
    printed = capsys.readouterr()
    assert "pixel accuracy" in " ".join(printed.out.split())
    assert "No space left on device" in printed.err


def test_numbers_are_written_although_nobody_reads_them(scoring, tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(Console, "on_broken_pipe", lambda console: sys.exit(1))  # it closes stdout's file
    with pytest.raises(SystemExit):
        evaluate.main(scoring)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["results"]


def test_a_terminal_that_knows_few_letters_shows_the_others_as_numbers(command, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert evaluate.main(["foreground", *command, *QUICK["foreground"]]) == 0
    assert rb"\u03b8 = 0.65" in sys.stdout.buffer.getvalue()


def test_a_checkpoint_that_is_not_there_is_told_before_any_image_is_opened(
    scoring, tmp_path, capsys, no_work
):
    assert evaluate.main([*scoring, "--checkpoint", "missing.pt"]) == 2
    assert "there is no checkpoint file missing.pt" in capsys.readouterr().err
