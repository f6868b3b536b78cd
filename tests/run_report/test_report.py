"""The page of a run: everything is on it, in one file, and names from files are text."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcl.commands import evaluate
from hcl.evaluation.linear_classifier import save_classifier, untrained_classifier
from hcl.figures.colours import as_bytes, as_hex, cluster_colours

HOSTILE = "<b>bold&"


def written(tmp_path: Path, run: Path, *arguments: str) -> str:
    output = tmp_path / "report.html"
    assert evaluate.main(["report", str(run), "--output", str(output), *arguments]) == 0
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(page) -> str:
    return page.read_text(encoding="utf-8")


def test_everything_of_a_run_is_on_the_page(html):
    for section in ("training", "settings", "evaluations", "seen", "components", "worst"):
        assert html.count(f'<section id="{section}">') == 1
    assert "the total loss goes from 3.000 to 1.500" in html
    assert "cluster on scenes-val" in html
    assert "Confusion of 6 classes" in html
    assert "projection_dim" in html
    assert html.count("[CLS] attention") == 3
    assert "so they depend on the labels" in html


def test_the_page_needs_nothing_else(page, html):
    assert re.findall(r'(?:src|href)="(?!data:image/|#)', html) == []
    assert "url(" not in re.sub(r"url\(#\w+\)", "", html)
    assert "<script" not in html
    assert [path.name for path in page.parent.iterdir() if path.is_file()] == ["report.html"]


def test_the_page_lies_in_the_runs_folder_unless_told_otherwise(tmp_path, finished, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert evaluate.main(["report", str(run)]) == 0
    assert f"written to {run / 'report.html'}" in capsys.readouterr().out
    assert (run / "report.html").is_file()
    assert list(elsewhere.iterdir()) == []


def test_the_title_tells_runs_apart(tmp_path, finished):
    assert "<title>finished: tiny on scenes train " in written(tmp_path, finished)


def test_components_show_their_colours(tmp_path, finished, pictures):
    html = written(tmp_path, finished, *pictures, "--components=2")
    shown = re.findall(r'style="background: (#[0-9a-f]{6})"></span>Component (\d+)', html)
    colours = as_bytes(cluster_colours(np.arange(2)))
    assert shown
    assert all(colour == as_hex(colours[int(number)]) for colour, number in shown)


def test_every_picture_is_described(html):
    images = re.findall(r"<img [^>]*>", html)
    assert len(images) >= 3 * 4 + 3 * 3
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    charts = re.findall(r"<svg [^>]*>", html)
    assert len(charts) == 4
    assert all(re.search(r'role="img" aria-label="[^"]+"', chart) for chart in charts)


def test_without_data_there_are_no_pictures(tmp_path, finished):
    html = written(tmp_path, finished)
    assert "<img" not in html
    assert 'id="worst"' not in html


def test_images_without_labels_have_no_worst_ones(tmp_path, finished, scenes):
    folder = ["--data.kind=folder", f"--data.root={scenes / 'JPEGImages'}", "--size=64", "--images=2"]
    html = written(tmp_path, finished, *folder, "--components=4", "--device=cpu")
    assert "2 images of" in html
    assert 'id="worst"' not in html


def test_a_classifier_predicts_where_one_is_given(tmp_path, finished, pictures):
    path = tmp_path / "classifiers" / "linear.pth.tar"
    save_classifier(untrained_classifier(24, 6, seed=0), path)
    html = written(tmp_path, finished, *pictures, "--classifier", str(path))
    assert f"The predictions are those of the linear classifier {path}" in html


def test_names_with_html_in_them_are_text(tmp_path, finished, scenes):
    root = tmp_path / "scenes"
    shutil.copytree(scenes, root)
    for old in (root / "JPEGImages/val_00000.jpg", root / "SegmentationClass/val_00000.png"):
        old.rename(old.with_name(HOSTILE + old.suffix))
    split = root / "ImageSets/Segmentation/val.txt"
    split.write_text(split.read_text().replace("val_00000", HOSTILE))
    report = json.loads((finished / "cluster/metrics.json").read_text())
    result = report["results"][0]
    result["class_iou"] = {f"<i>{name}$_$": value for name, value in result["class_iou"].items()}
    result["name"] = report["command"] = report["data"]["name"] = "</svg><script>alert(1)</script>"
    (tmp_path / "evil.json").write_text(json.dumps(report))
    data = ["--data.kind=scenes", f"--data.root={root}", "--data.split=val", "--size=64", "--components=5"]
    html = written(tmp_path, finished, "--evaluations", str(tmp_path / "evil.json"), *data, "--device=cpu")
    for markup in ("<script", "<b>", "<i>", "</svg><"):
        assert markup not in html.replace("</svg><figcaption>", "")
    assert "&lt;b&gt;bold&amp;.jpg" in html
    assert "&lt;i&gt;" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_a_report_without_confusion_says_so(tmp_path, finished):
    report = json.loads((finished / "cluster/metrics.json").read_text())
    for result in report["results"]:
        del result["confusion"]
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps(report))
    html = written(tmp_path, run)
    assert "This metrics.json holds no confusion matrix." in html
    assert "The folder holds no checkpoint" in html


def test_a_file_that_is_named_twice_is_shown_once(tmp_path, finished):
    html = written(tmp_path, finished, "--evaluations", str(finished / "cluster"), str(finished))
    assert html.count("<h3>cluster on scenes-val</h3>") == 1


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, [], "holds no log.jsonl, no checkpoint and no metrics.json"),
        ({"metrics.json": '{"protocol": "cluster"}'}, [], "metrics.json is not a report of evaluate.py"),
        ({"metrics.json": "[1"}, [], "metrics.json is not a report of evaluate.py"),
        ({"log.jsonl": 'x\n{"step": 1}\n'}, [], "line 1 of"),
        ({"log.jsonl": "{}\n"}, ["--evaluations", "nowhere"], "nowhere does not exist"),
        ({"log.jsonl": "{}\n"}, ["--images=0"], "images is 0"),
        ({"log.jsonl": "{}\n"}, ["--classifier=x"], "give --data too"),
        ({"log.jsonl": "{}\n"}, ["--data.kind=folder", "--data.root=x"], "holds no checkpoint"),
    ],
)
def test_bad_input_is_told_in_one_line(tmp_path, capsys, files, arguments, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    output = tmp_path / "report.html"
    assert evaluate.main(["report", str(tmp_path), "--output", str(output), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not output.exists()


def test_a_confusion_of_another_shape_is_refused(tmp_path, finished, capsys):
    report = json.loads((finished / "cluster/metrics.json").read_text())
    report["results"][0]["confusion"] = [[1]]
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    assert evaluate.main(["report", str(tmp_path), "--output", str(tmp_path / "x.html")]) == 2
    assert "a confusion matrix of shape (1, 1) for 6 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("channels", "classes", "message"),
    [
        (25, 6, "tokens with 25 channels, but these have 24"),
        (24, 5, "has 5 classes, but scenes-val has 6"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(
    tmp_path, finished, pictures, capsys, channels, classes, message
):
    save_classifier(untrained_classifier(channels, classes, seed=0), tmp_path / "linear.pth.tar")
    arguments = ["report", str(finished), *pictures, "--classifier", str(tmp_path / "linear.pth.tar")]
    assert evaluate.main([*arguments, "--output", str(tmp_path / "x.html")]) == 2
    assert message in capsys.readouterr().err


def test_pictures_are_whole(html):
    """A JPEG of the page is decoded again."""
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    sizes = {Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in encoded}
    assert (64, 64) in sizes
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[0]))))
    assert first.std() > 5
