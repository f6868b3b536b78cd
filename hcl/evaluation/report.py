"""The report of a protocol: metrics.json with everything that led to the scores, and printed tables."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from hcl.distributed import World
from hcl.evaluation.protocol import ProtocolConfig
from hcl.files import written_whole
from hcl.provenance import provenance

METRICS = "metrics.json"
COLUMNS = {
    "miou": "mIoU, all classes",
    "miou_present": "mIoU, present classes",
    "matched_miou": "mIoU, matched by the scored labels",
    "pixel_accuracy": "pixel accuracy",
    "published_accuracy": "published accuracy",
    "jaccard": "Jaccard index",
    "image_jaccard": "mean over images",
    "leopart_jaccard": "unlabelled as objects",
}


def complete(
    results: dict[str, Any], protocol: str, config: ProtocolConfig, world: World, seconds: float
) -> dict[str, Any]:
    """Add to the results of a protocol all that is needed to reproduce them.

    Args:
        results: return value of the protocol's ``run`` function: the facts of `protocol.facts`, and under
            ``results`` an entry for each row of the table.
        protocol: name of the protocol on the command line.
        config: settings of the protocol.
        world: the ranks that it ran on.
        seconds: duration of the run, from the opening of the data to the last score.
    """
    return {
        "protocol": protocol,
        **results,
        "seed": config.seed,
        "settings": settings_of(config),
        "seconds": round(seconds, 1),
        **provenance(world),
    }


def settings_of(config: ProtocolConfig) -> dict[str, Any]:
    """Return the settings as `METRICS` records them.

    They include the backbone according to checkpoint and settings, and digests of the weights, since the
    content of files may change later.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `ProtocolConfig.given_head`.
    """
    return {**asdict(config), "backbone": asdict(config.chosen_backbone), "digests": config.digests}


def as_json(report: dict[str, Any]) -> str:
    """Return the report as JSON; a number that is not finite becomes a string, such as "nan" or "inf"."""
    return json.dumps(_finite(report), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(own) for own in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_metrics(report: dict[str, Any], folder: Path) -> Path:
    """Write `METRICS` into the folder, completely or not at all."""
    path = folder / METRICS
    with written_whole(path) as file:
        file.write(as_json(report).encode() + b"\n")
    return path


def print_report(report: dict[str, Any]) -> None:
    """Print the scores and then the IoU of each class, in per cent; names are printed without markup."""
    console = Console(markup=False, emoji=False, highlight=False)
    data = report["data"]
    console.print(f"{report['protocol']} of {data['name']} ({data['images']} images)", style="bold")
    if data["skipped"]:
        console.print(f"{len(data['skipped'])} images could not be used; they are listed in {METRICS}")
    console.print(f"tokens: {described_tokens(report)}")
    console.print(f"labels compared at {report['label_resolution']}, CRF {report['crf']}")
    console.print(f"labels used for: {report['labels_used_for']}")
    console.print(_printed("", score_cells(report["results"])))
    if results := with_classes(report["results"]):
        console.print(_printed("IoU", class_cells(results)))


def described_tokens(report: dict[str, Any]) -> str:
    """Describe the tokens of a report in words; for a report with baselines, every kind of tokens."""
    if "all_tokens" in report:
        return "; ".join(f"{name}: {_in_words(tokens)}" for name, tokens in report["all_tokens"].items())
    return _in_words(report["tokens"])


def _in_words(tokens: dict[str, Any]) -> str:
    return f"{tokens['source']}, {tokens['channels']} channels, grid {'x'.join(map(str, tokens['grid']))}"


class Cells(NamedTuple):
    """A table to show: the names of its columns, and rows of a name and one cell for each column."""

    columns: list[str]
    rows: list[tuple[str, list[str]]]


def score_cells(results: list[dict[str, Any]]) -> Cells:
    """Tabulate scores in per cent, one row per result; with several seeds, mean ± standard deviation."""
    names = list(dict.fromkeys(name for result in results for name in result["mean"]))
    rows = [(result["name"], [_per_cent(result, name) for name in names]) for result in results]
    return Cells([COLUMNS[name] for name in names], rows)


def class_cells(results: list[dict[str, Any]]) -> Cells:
    """Tabulate the IoU of each class in per cent, one column per result; all have the same classes."""
    rows = [(name, [_class_cell(result, name) for result in results]) for name in results[0]["class_iou"]]
    return Cells([result["name"] for result in results], rows)


def with_classes(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results that hold the IoU of each class."""
    return [result for result in results if "class_iou" in result]


def _printed(corner: str, cells: Cells) -> Table:
    table = Table(corner, *cells.columns)
    for name, row in cells.rows:
        table.add_row(name, *row)
    return table


def _class_cell(result: dict[str, Any], name: str) -> str:
    return "absent" if name in result["absent_classes"] else _hundredfold(result["class_iou"][name])


def _per_cent(result: dict[str, Any], name: str) -> str:
    if name not in result["mean"]:
        return ""
    mean = _hundredfold(result["mean"][name])
    return f"{mean} ± {_hundredfold(result['std'][name])}" if len(result["seeds"]) > 1 else mean


def _hundredfold(share: float | str) -> str:
    return f"{100 * float(share):.2f}"
