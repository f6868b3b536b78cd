"""Charts stand in a page: in its ink, with a description, and whatever a name holds is text."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from hcl.figures.charts import INK, chart_style, svg_of
from hcl.figures.class_charts import class_iou_chart, confusion_chart
from hcl.figures.curves import loss_chart

NAMES = ["<script>alert(1)</script>", "$\\frac{$", 'a "quoted" & long name of more than twenty-eight letters']


@pytest.fixture
def charts() -> list[str]:
    losses = dict.fromkeys(("loss", "loss_fg", "loss_bg", "loss_prediction"), 1.5)
    return [
        loss_chart([{"step": step, **losses} for step in (1, 2)]),
        class_iou_chart({name: [0.5, None] for name in NAMES}, NAMES[:2]),
        confusion_chart(np.eye(3, dtype=np.int64), NAMES),
    ]


def test_charts_take_the_ink_of_their_page(charts):
    for chart in charts:
        assert chart.startswith("<svg ")
        assert "currentColor" in chart
        assert INK not in chart


def test_charts_are_described(charts):
    assert 'aria-label="Loss curves from step 1 to step 2' in charts[0]
    assert 'aria-label="Bars of the IoU of 3 classes' in charts[1]
    assert "100.0 per cent of all pixels lie on the diagonal" in charts[2]


def test_names_are_text(charts):
    for chart in charts[1:]:
        assert "<script" not in chart
        assert "&lt;script&gt;" in chart
        assert "$\\frac{$" in chart


@chart_style
def test_a_description_is_text():
    chart = svg_of(Figure(figsize=(1, 1)), '"><script>alert("1")</script>')
    assert "<script" not in chart
    assert 'aria-label="&#34;&gt;&lt;script&gt;' in chart


def bar_width(iou: float) -> float:
    chart = class_iou_chart({"sky": [iou]}, ["run"])
    points = re.search(r'd="M ([-\d.]+) [-\d.]+ \s*L ([-\d.]+) [^"]*" [^>]*fill: #3b82c4', chart)
    return float(points[2]) - float(points[1])


def test_bars_are_as_long_as_the_iou_is_high():
    assert bar_width(0.5) == pytest.approx(2 * bar_width(0.25), rel=1e-3)
    assert bar_width(0.5) > 50
