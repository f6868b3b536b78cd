"""What a protocol leaves: metrics.json with everything that led to the numbers, and tables to read."""

import json
import platform
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hcl.evaluation.protocol import ProtocolConfig
from hcl.files import written_whole

LIBRARIES = ("torch", "torchmetrics", "numpy", "scipy")
COLUMNS = {
    "miou": "mIoU, all classes",
    "miou_present": "mIoU, present",
    "pixel_accuracy": "pixel accuracy",
    "published_accuracy": "published accuracy",
}


def complete(
    results: dict[str, Any], protocol: str, config: ProtocolConfig, device: torch.device, seconds: float
) -> dict[str, Any]:
    """The results of a protocol together with all that is needed to get them again.

    Args:
        results: as `overclustering.run` and `linear_probe.run` return them.
        protocol: its name on the command line.
        config: its settings.
        device: that it ran on.
        seconds: that it took, from the opening of the data to the last score.
    """
    return {
        "protocol": protocol,
        **results,
        "seed": config.seed,
        "settings": asdict(config),
        "command": shlex.join(sys.argv),
        "device": _describe(device),
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def write_metrics(report: dict[str, Any], folder: Path) -> Path:
    """Write ``metrics.json`` into the folder, whole or not at all."""
    path = folder / "metrics.json"
    with written_whole(path) as file:
        file.write(json.dumps(report, indent=2, allow_nan=False).encode() + b"\n")
    return path


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print the scores, then the IoU of each class, in per cent."""
    data, tokens = report["data"], report["tokens"]
    console.print(f"{report['protocol']} of {data['name']} ({data['images']} images)", style="bold")
    console.print(f"tokens: {tokens['source']}, {tokens['channels']} channels, grid {_times(tokens['grid'])}")
    console.print(f"labels compared at {report['label_resolution']}")
    console.print(_score_table(report["results"]))
    console.print(_class_table(report["results"]))


def _score_table(results: list[dict[str, Any]]) -> Table:
    names = list(results[0]["mean"])
    table = Table("", *(COLUMNS[name] for name in names))
    for result in results:
        table.add_row(_title(result), *(_per_cent(result, name) for name in names))
    return table


def _class_table(results: list[dict[str, Any]]) -> Table:
    table = Table("IoU", *map(_title, results))
    for name in results[0]["class_iou"]:
        cells = (
            "absent" if name in result["absent_classes"] else f"{100 * result['class_iou'][name]:.2f}"
            for result in results
        )
        table.add_row(name, *cells)
    return table


def _title(result: dict[str, Any]) -> str:
    return f"K = {result['clusters']}" if "clusters" in result else "linear classifier"


def _per_cent(result: dict[str, Any], name: str) -> str:
    mean = f"{100 * result['mean'][name]:.2f}"
    return f"{mean} ± {100 * result['std'][name]:.2f}" if len(result["seeds"]) > 1 else mean


def _times(grid: list[int]) -> str:
    return "x".join(map(str, grid))


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
