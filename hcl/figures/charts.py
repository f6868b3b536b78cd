"""Charts as SVG inside a page, in the page's own ink and letters, so that they follow its dark mode."""

import io
import re
from collections.abc import Sequence

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's ink while matplotlib draws; no chart uses it for anything else."""
LINES = ("#3b82c4", "#e07b39", "#3a9d6e", "#a76bc4", "#c9a227", "#d6557f", "#5bb3c9", "#8c8c8c")
"""Colours of lines and bars, told apart on white and on black."""
WIDTH = 4.6
"""Of a chart in inches: its letters are still read where a telephone shrinks it to three and a half."""

chart_style = rc_context(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": INK,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": INK,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "grid.alpha": 0.15,
        "grid.color": INK,
        "image.interpolation": "nearest",
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "lines.linewidth": 2,
        "svg.fonttype": "none",
        "svg.hashsalt": "hcl",
        "text.color": INK,
        "text.parse_math": False,  # a name from a file with dollars in it is no formula
        "xtick.color": INK,
        "ytick.color": INK,
    }
)
"""Around whatever draws a chart and writes it."""


def svg_of(figure: Figure, description: str) -> Markup:
    """A figure as an SVG element for a page: of no size of its own, and described for those who listen.

    Args:
        figure: drawn in `chart_style`.
        description: what the figure shows, in a sentence; any text.
    """
    file = io.StringIO()
    figure.savefig(
        file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    markup = file.getvalue()
    markup = markup[markup.index("<svg") :].replace(INK, "currentColor")
    opening, rest = markup.split(">", 1)
    opening = re.sub(r'\s(?:width|height|version)="[^"]*"', "", opening)
    # Of matplotlib's ids only those that are referred to are of use; the rest would occur once a chart.
    rest = re.sub(r' id="(?:figure|patch|axes|matplotlib|xtick|ytick|line2d|text|legend)[.\w]*"', "", rest)
    return Markup(f'{opening} role="img" aria-label="{escape(description)}">{rest}')


def shortened(names: Sequence[str], most: int = 28) -> list[str]:
    """Names for an axis, on one line, of at most so many letters."""
    lines = [" ".join(name.split()) for name in names]
    return [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
