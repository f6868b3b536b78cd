"""Bar chart of times, of this project and of the published way: ``python -m hcl.figures.comparison``."""

import argparse
import csv
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hcl.command_line import reported

OURS, PUBLISHED = "#00796b", "#9aa0a6"


class Timing(NamedTuple):
    """Seconds for one task with this project and the published way; the latter measured or extrapolated."""

    work: str
    ours: float
    published: float
    extrapolated: bool


def read_timings(path: Path) -> list[Timing]:
    """Read a table with work, this_project_seconds, published_way_seconds and published_way.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: it has other columns, or a time that is not a positive number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        timings = [
            Timing(
                row["work"],
                float(row["this_project_seconds"]),
                float(row["published_way_seconds"]),
                {"measured": False, "extrapolated": True}[row["published_way"]],
            )
            for row in rows
        ]
    except KeyError as error:
        raise ValueError(f"{path}: a row lacks {error}, or is neither measured nor extrapolated") from error
    if any(min(timing.ours, timing.published) <= 0 for timing in timings):
        raise ValueError(f"{path}: times must be above 0 seconds")
    return timings


def draw_comparison(timings: list[Timing], path: Path, *, note: str) -> None:
    """Draw two bars for each task on a logarithmic axis, with their ratio next to them.

    Args:
        timings: timings in the order from top to bottom.
        path: path of the SVG file.
        note: text below the axis: the machine of the measurements.
    """
    figure = Figure(figsize=(8, 0.5 * len(timings) + 1.4), layout="constrained")
    axes = figure.subplots()
    for row, timing in enumerate(timings):
        hatch = "///" if timing.extrapolated else None
        axes.barh(row + 0.19, timing.published, 0.34, color=PUBLISHED, hatch=hatch, edgecolor="white")
        axes.barh(row - 0.19, timing.ours, 0.34, color=OURS)
        ratio = f"  {float(f'{timing.published / timing.ours:.2g}'):g}×"
        axes.text(max(timing.ours, timing.published), row, ratio, va="center", fontsize=9)
    axes.set_yticks(range(len(timings)), [timing.work for timing in timings])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel(f"seconds\n{note}", loc="right")
    axes.legend(
        [Patch(color=OURS), Patch(color=PUBLISHED), Patch(fc=PUBLISHED, ec="white", hatch="///")],
        ["this project", "the published way", "the same, extrapolated"],
        loc="lower center",
        bbox_to_anchor=(0.35, 1),
        ncols=3,
        frameon=False,
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same timings give the same file: no date, no random ids.
    with mpl.rc_context({"svg.hashsalt": "hcl"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hcl.figures.comparison", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("table", type=Path, nargs="?", default="benchmarks/results/cpu_comparison.csv")
    parser.add_argument("picture", type=Path, nargs="?", default="docs/images/speed.svg")
    parser.add_argument("--note", default="CPU: AMD EPYC, both cores, otherwise idle", help="below the axis")
    given = parser.parse_args()

    def draw() -> int:
        draw_comparison(read_timings(given.table), given.picture, note=given.note)
        return 0

    return reported(parser.prog, draw)


if __name__ == "__main__":
    sys.exit(_main())
