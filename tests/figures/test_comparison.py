"""Times side by side: what is drawn are the figures that the documentation tells of."""

from pathlib import Path

import pytest

from hcl.figures.comparison import Timing, draw_comparison, read_timings

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "benchmarks" / "results" / "cpu_comparison.csv"


@pytest.mark.parametrize("timing", read_timings(TABLE), ids=lambda timing: timing.work)
def test_every_drawn_figure_stands_in_the_report(timing):
    report = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").replace(",", "")
    for seconds in (timing.ours, timing.published):
        assert f"{seconds:g} s" in report or f"{seconds:.1f} s" in report


def test_the_same_times_give_the_same_picture(tmp_path):
    timings = [Timing("a", 1.0, 2.0, False), Timing("b", 3.0, 600.0, True)]
    pictures = []
    for name in ("one.svg", "two.svg"):
        draw_comparison(timings, tmp_path / name, note="made up")
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"<?xml")


@pytest.mark.parametrize(
    ("row", "said"), [("a,1,0,measured", "above 0"), ("a,1,2,guessed", "measured"), ("a,x,2,measured", "x")]
)
def test_a_table_that_says_something_else_is_refused(tmp_path, row, said):
    path = tmp_path / "times.csv"
    path.write_text(f"work,this_project_seconds,published_way_seconds,published_way\n{row}\n")
    with pytest.raises(ValueError, match=said):
        read_timings(path)
