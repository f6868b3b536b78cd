"""metrics.json is there whole or not at all; the table tells absent classes from bad ones."""

import json
import math

import pytest
import torch

from hcl.evaluation.metrics import Scores, over_seeds, summary
from hcl.evaluation.report import as_json, print_report, score_cells, write_metrics
from hcl.files import written_whole


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def scores(*rows: tuple[int, ...]) -> Scores:
    return Scores(torch.tensor(rows))


def report(*results: dict) -> dict:
    return {
        "protocol": "overcluster",
        "data": {"name": "voc-val", "images": 3, "skipped": ["a.jpg is no image"]},
        "tokens": {"source": "somewhere", "channels": 4, "grid": [2, 2]},
        "label_resolution": "100x100",
        "labels_used_for": "matching",
        "crf": "off",
        "results": list(results),
    }


def test_mean_and_deviation_run_over_the_seeds():
    result = summary({3: scores((1, 1), (0, 1)), 7: scores((2, 0), (0, 1))}, ("a", "b"))
    assert result["mean"]["miou"] == pytest.approx(0.75)
    assert result["std"]["miou"] == pytest.approx(0.25)
    assert result["class_iou"] == {"a": pytest.approx(0.75), "b": pytest.approx(0.75)}
    assert result["confusion"] == [[3, 1], [0, 2]]
    assert [row["seed"] for row in result["seeds"]] == [3, 7]


def test_a_file_that_fails_halfway_leaves_the_old_one(tmp_path):
    path = write_metrics({"miou": 0.5}, tmp_path)
    with pytest.raises(TypeError), written_whole(path) as file:
        file.writelines([b"half", None])
    assert json.loads(path.read_text()) == {"miou": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_json_does_not_know_are_words(tmp_path):
    path = write_metrics({"miou": float("nan"), "lr": [math.inf, 0.5]}, tmp_path)
    assert json.loads(path.read_text()) == {"miou": "nan", "lr": ["inf", 0.5]}


def test_a_score_that_is_no_number_is_shown(tmp_path):
    result = {"name": "attention", **over_seeds({0: {"jaccard": math.nan, "image_jaccard": 0.5}})}
    written = json.loads(as_json({"results": [result]}))["results"]
    assert score_cells(written).rows == score_cells([result]).rows == [("attention", ["nan", "50.00"])]


def test_the_table_shows_mean_deviation_and_absent_classes(capsys):
    runs = {0: scores((1, 1, 0), (0, 0, 0), (0, 0, 0)), 1: scores((2, 0, 0), (0, 0, 0), (0, 0, 0))}
    print_report(report({"name": "K = 500", **summary(runs, ("sky", "sea", "sun"))}))
    text = capsys.readouterr().out
    assert "labels compared at 100x100, CRF off" in text
    assert "1 images could not be used" in text
    assert "labels used for: matching" in text
    assert "25.00 ± 8.33" in text
    rows = {line.split()[1]: line.split()[3] for line in text.splitlines() if "s" in line and "│" in line}
    assert rows["sky"] == "75.00"
    assert rows["sea"] == "0.00"
    assert rows["sun"] == "absent"


def test_a_baseline_tells_the_tokens_of_each_kind_of_rows(capsys):
    whole = report({"name": "z: K = 5", **summary({0: scores((1, 1), (0, 1))}, ("a", "b"))})
    tokens = whole.pop("tokens")
    whole["all_tokens"] = {"backbone": tokens, "z": tokens | {"source": "elsewhere", "channels": 9}}
    print_report(whole)
    text = " ".join(capsys.readouterr().out.split())
    assert "backbone: somewhere, 4 channels, grid 2x2; z: elsewhere, 9 channels, grid 2x2" in text


def test_rows_of_different_scores_share_a_table(capsys):
    jaccard = {"name": "attention", **over_seeds({0: {"jaccard": 0.5}})}
    communities = {"name": "communities", **summary({0: scores((1, 1), (0, 1))}, ("a", "b"))}
    print_report(report(jaccard, communities))
    lines = capsys.readouterr().out.splitlines()
    (attention,) = (line for line in lines if line.startswith("│ attention"))
    assert attention.split() == ["│", "attention", "│", "50.00", "│", "│", "│", "│"]
    assert sum("attention" in line for line in lines) == 1


def test_names_are_printed_as_they_are(capsys):
    whole = report({"name": "K = 5", **summary({0: scores((1, 1), (0, 1))}, ("sea [b]", ":sun:"))})
    whole["tokens"]["source"] = "head of runs[v2]/[/x] on tiny"
    print_report(whole)
    text = capsys.readouterr().out
    assert "tokens: head of runs[v2]/[/x] on tiny" in text
    assert "sea [b]" in text
    assert ":sun:" in text
