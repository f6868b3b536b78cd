import csv

import pytest
import torch

from benchmarks import harness
from benchmarks.harness import Ceilings, measure, write_rows


@pytest.fixture
def row(monkeypatch):
    monkeypatch.setattr(harness, "ceilings", lambda: Ceilings(copy=1e9, matrix=1e12))
    x = torch.ones(1000)
    return measure("copy", "eager", "1000", x.clone, bytes_moved=8000)


def test_a_row_holds_ordered_quantiles_and_the_share_of_the_roofline(row):
    assert 0 < row.ms_20 <= row.ms_50 <= row.ms_80
    assert row.roofline_share == pytest.approx(8000 / 1e9 * 1e3 / row.ms_50)
    assert row.torch == torch.__version__


@pytest.mark.parametrize(("seconds", "calls"), [(1e-5, 50), (0.1, 20), (2.0, 5)])
def test_on_a_gpu_a_long_call_is_made_fewer_times_than_a_short_one(monkeypatch, seconds, calls):
    made = []

    def timed(run, count):
        made.extend(run() for _ in range(count))
        return [seconds] * count

    monkeypatch.setattr(harness, "_timed_by_events", timed)
    assert harness._times_on_gpu(lambda: None) == [seconds] * calls
    assert len(made) == 1 + calls


def test_rows_are_appended_under_one_heading(row, tmp_path):
    path = write_rows([row], tmp_path)
    assert write_rows([row, row], tmp_path) == path
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["impl"] for r in rows] == ["eager"] * 3
    assert float(rows[2]["ms_50"]) == row.ms_50
    assert list(tmp_path.iterdir()) == [path]
