"""The metrics.json of protocols, as sections of a page."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from hcl.evaluation.report import METRICS, Cells, class_cells, described_tokens, score_cells, with_classes
from hcl.figures.class_charts import class_iou_chart, confusion_chart


class Confusion(NamedTuple):
    """The confusion of one result, as a chart."""

    name: str
    chart: Markup


class Evaluation(NamedTuple):
    """A protocol's report, ready to be shown.

    Attributes:
        title: protocol and data.
        path: path of the file.
        facts: facts about the comparison, by name.
        scores: a row for each result.
        classes: the IoU of each class; None if the protocol does not compute it.
        chart: the same as a chart.
        confusions: confusions of the results that hold one.
    """

    title: str
    path: Path
    facts: dict[str, str]
    scores: Cells
    classes: Cells | None
    chart: Markup | None
    confusions: list[Confusion]


def find_evaluations(places: Iterable[Path]) -> list[Path]:
    """Find every metrics.json among files and in folders, each once, in the order of the places.

    Raises:
        FileNotFoundError: a place does not exist.
    """
    found: dict[Path, Path] = {}
    for place in places:
        if not place.exists():
            raise FileNotFoundError(
                f"{place} does not exist: give a {METRICS}, or a folder that contains some"
            )
        for path in sorted(place.rglob(METRICS)) if place.is_dir() else [place]:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def read_evaluation(path: Path) -> Evaluation:
    """Read the report of a protocol.

    Raises:
        ValueError: the file is not a report of a protocol.
    """
    try:
        return _evaluation(json.loads(path.read_text(encoding="utf-8")), path)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a report of evaluate.py: {reason}") from error


def _evaluation(report: dict[str, Any], path: Path) -> Evaluation:
    results = report["results"]
    of_classes = with_classes(results)
    return Evaluation(
        f"{report['protocol']} on {report['data']['name']}",
        path,
        _facts(report),
        score_cells(results),
        class_cells(of_classes) if of_classes else None,
        _class_chart(of_classes) if of_classes else None,
        [_confusion(result) for result in of_classes if "confusion" in result],
    )


def _facts(report: dict[str, Any]) -> dict[str, str]:
    data = report["data"]
    facts = {
        "images": f"{data['images']}",
        "tokens": described_tokens(report),
        "labels compared at": f"{report['label_resolution']}",
        "labels used for": f"{report['labels_used_for']}",
        "CRF": f"{report['crf']}",
        "took": f"{report['seconds']:.0f} s on {report['device']}, ranks: {report['ranks']}",
        "command": f"{report['command']}",
    }
    if skipped := data.get("skipped"):
        facts["images left out"] = f"{len(skipped)}, listed in {METRICS}"
    return facts


def _class_chart(results: list[dict[str, Any]]) -> Markup:
    values = {
        name: [None if name in result["absent_classes"] else result["class_iou"][name] for result in results]
        for name in results[0]["class_iou"]
    }
    return class_iou_chart(values, [result["name"] for result in results])


def _confusion(result: dict[str, Any]) -> Confusion:
    classes, confusion = list(result["class_iou"]), np.array(result["confusion"], dtype=np.int64)
    if confusion.shape != (len(classes), len(classes)):
        raise ValueError(f"a confusion matrix of shape {confusion.shape} for {len(classes)} classes")
    return Confusion(result["name"], confusion_chart(confusion, classes))
