"""Charts as SVG inside a page, in the page's own text colour and font, so that they follow its dark mode."""

import io
import re
from collections.abc import Sequence

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

INK = "#010203"
"""Placeholder for the page's text colour while matplotlib draws; no chart uses it for anything else."""
LINES = ("#3b82c4", "#e07b39", "#3a9d6e", "#a76bc4", "#c9a227", "#d6557f", "#5bb3c9", "#8c8c8c")
"""Colours of lines and bars that can be distinguished on white and on black."""
WIDTH = 4.6
"""Width of a chart in inches; its text is still readable when a phone shrinks it to three and a half."""

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
        "text.parse_math": False,  # names from files may contain dollar signs
        "xtick.color": INK,
        "ytick.color": INK,
    }
)
"""Decorator of functions that draw a chart and write it."""


def svg_of(figure: Figure, description: str) -> Markup:
    """Return a figure as an SVG element for a page, without a fixed size and described for screen readers.

    Args:
        figure: figure drawn in `chart_style`.
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
    # Only ids that are referred to are needed; matplotlib's others would occur once in every chart.
    rest = re.sub(r' id="(?:figure|patch|axes|matplotlib|xtick|ytick|line2d|text|legend)[.\w]*"', "", rest)
    return Markup(f'{opening} role="img" aria-label="{escape(description)}">{rest}')


def shortened(names: Sequence[str], most: int = 28) -> list[str]:
    """Shorten names for an axis to one line of at most ``most`` characters."""
    lines = [" ".join(name.split()) for name in names]
    return [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
