"""Charts of the classes: the IoU of each, and which classes are confused."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from hcl.figures.charts import LINES, WIDTH, chart_style, shortened, svg_of

BAR, GAP = 0.1, 0.1
"""Height of a bar and space between classes, in inches."""


@chart_style
def class_iou_chart(class_iou: Mapping[str, Sequence[float | None]], results: Sequence[str]) -> Markup:
    """Draw horizontal bars for a page: a group for each class, with one bar for each result.

    Args:
        class_iou: IoU in [0, 1] by class, one for each result; None if the class is absent.
        results: names of the results.
    """
    bars = len(results)
    height = 0.9 + len(class_iou) * (BAR * bars + GAP) + 0.2 * bars
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(class_iou), dtype=float)
    thickness = 0.82 / bars
    for number, name in enumerate(shortened(results, 44)):
        values = [100 * (row[number] or 0.0) for row in class_iou.values()]
        offset = (number - (bars - 1) / 2) * thickness
        colour = LINES[number % len(LINES)]
        axes.barh(places + offset, values, thickness * 0.9, color=colour, label=name)
    axes.set_yticks(places, shortened(list(class_iou)))
    axes.set_ylim(len(class_iou) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("IoU in per cent")
    axes.grid(visible=False, axis="y")
    if bars > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", fontsize=9)
    return svg_of(figure, f"Bars of the IoU of {len(class_iou)} classes; the table below holds the numbers.")


@chart_style
def confusion_chart(confusion: np.ndarray, classes: Sequence[str]) -> Markup:
    """Draw for a page which share of each labelled class is predicted as each class.

    Args:
        confusion: (classes, classes) pixels, predicted by labelled.
        classes: names of the classes.
    """
    shares = (confusion / np.maximum(confusion.sum(axis=0), 1)).T
    side = 0.17 * len(classes)
    figure = Figure(figsize=(max(side + 2.2, WIDTH), max(side + 1.7, 3.2)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="viridis", vmin=0, vmax=100)
    names = shortened(classes, 18)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30)
    bar.set_label("per cent of the labelled pixels", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    right = float(confusion.diagonal().sum() / max(confusion.sum(), 1))
    return svg_of(
        figure,
        f"Confusion of {len(classes)} classes, a row for each labelled class; {100 * right:.1f} per cent of "
        "all pixels lie on the diagonal.",
    )
