"""Charts of a run: its losses and the quality of its clusterings."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hcl.figures.charts import LINES, WIDTH, chart_style, svg_of

LOSSES = ("loss", "loss_fg", "loss_bg", "loss_prediction")
NAMES = {
    "loss": "total",
    "loss_fg": "foreground",
    "loss_bg": "background",
    "loss_prediction": "prediction",
}
BANKS = ("foreground", "background")
Records = Sequence[Mapping[str, Any]]


def of_losses(records: Records) -> list[Mapping[str, Any]]:
    """Return the records with a step and every loss; others (of the clustering, for example) are left out."""
    return [record for record in records if record.keys() >= {"step", *LOSSES}]


def of_clusterings(records: Records) -> list[Mapping[str, Any]]:
    """Return the records of clusterings of both token banks."""
    wanted = {"step", *(f"{bank}_inertia" for bank in BANKS)}
    return [record for record in records if record.keys() >= wanted]


@chart_style
def loss_figure(records: Records) -> Figure:
    """Draw the losses over the steps; the prediction's, which has another scale, on an axis of its own.

    Args:
        records: records with ``step`` and `LOSSES`, at least one.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = [record["step"] for record in records]
    marker = "o" if len(records) == 1 else None
    for name, colour in zip(LOSSES, LINES, strict=False):
        axes = lower if name == "loss_prediction" else upper
        axes.plot(steps, [record[name] for record in records], color=colour, label=NAMES[name], marker=marker)
    for axes in (upper, lower):
        axes.set_ylabel("loss")
        axes.legend()
    lower.set_xlabel("step")
    lower.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    return figure


@chart_style
def loss_chart(records: Records) -> Markup:
    """Draw `loss_figure` for a page."""
    first, last = records[0], records[-1]
    return svg_of(
        loss_figure(records),
        f"Loss curves from step {first['step']} to step {last['step']}: the total loss goes from "
        f"{first['loss']:.3f} to {last['loss']:.3f}.",
    )


@chart_style
def clustering_chart(records: Records) -> Markup:
    """Draw for a page the mean squared distance of a banked token to its centroid at every clustering.

    Args:
        records: records from `of_clusterings`, at least one.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    distances = {bank: [record[f"{bank}_inertia"] for record in records] for bank in BANKS}
    for (bank, values), colour in zip(distances.items(), LINES[1:], strict=False):
        axes.plot([record["step"] for record in records], values, color=colour, marker="o", label=bank)
    axes.set_xlabel("step")
    axes.set_ylabel("mean squared distance")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.legend()
    ends = ", ".join(f"{bank} {values[-1]:.2g}" for bank, values in distances.items())
    return svg_of(
        figure,
        f"Mean squared distance of tokens to their centroids at {len(records)} clusterings; last: {ends}.",
    )
