import json
import sys
from dataclasses import replace

import pytest

from benchmarks import scale, steps, train_step
from benchmarks.scale_model import Costs, Shape, bank_rows, first_stop, predict
from tests.forks import FORKS

pytest.importorskip("faiss")
SMALL = [
    *("--backbone", "tiny", "--batch_size", "2", "--size", "64", "--clusters", "4", "--rounds", "1"),
    *("--check", "4", "6", "--precision", "fp32"),
]
SHAPE = Shape(
    tokens=264,
    cells=196,
    width=384,
    channels=256,
    attention_heads=6,
    level_bytes=2,
    backbone_parameters=21_000_000,
    head_parameters=12_000_000,
    momentum_parameters=11_000_000,
)
COSTS = Costs(
    step=1e-3,
    head=1e-4,
    view=4e-4,
    score=1e-11,
    input=5e-4,
    input_overlaps=True,
    activations=2e7,
    link=5e10,
    memory=80 * 2**30,
)


def test_the_report_holds_the_checks_and_every_row(monkeypatch, capsys):
    monkeypatch.setattr(train_step, "get_context", lambda _: FORKS)
    report = scale.main(SMALL)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report))
    assert [check["images"] for check in report["checks"]] == [4, 6]
    for check in report["checks"]:
        rows = check["bank_rows"]
        assert abs(rows["predicted"] - rows["measured"]) <= check["images"]
        assert check["epoch_seconds"]["measured"] > 0
    assert len(report["table"]) == len(scale.DATA_SETS) * len(scale.RANKS) * 3
    assert len(scale.markdown(report["table"]).splitlines()) == 2 + len(report["table"])


def test_without_dali_nothing_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(steps, "build", lambda options: pytest.fail("measures before it says so"))
    with pytest.raises(ModuleNotFoundError, match="needs NVIDIA DALI, which is not installed"):
        scale.main(SMALL)


def test_the_work_of_an_epoch_is_shared_out_and_so_is_the_bank():
    one, many = (predict(SHAPE, COSTS, 100_000, ranks, "kept") for ranks in (1, 8))
    for name in ("training", "bank_pass", "kmeans", "kept", "bank"):
        assert getattr(one, name) == pytest.approx(8 * getattr(many, name))
    assert one.bank == pytest.approx(3.3 * bank_rows(SHAPE, 100_000) * 256 * 4)
    assert one.sent == one.sending == 0 < many.sending


def test_of_a_bank_a_rank_sends_the_new_rows_that_others_own():
    with_bank, without = (predict(SHAPE, COSTS, 100_000, 8, mode).sent for mode in ("kept", "online"))
    share = bank_rows(SHAPE, 100_000) * 256 * 4 / 8
    assert with_bank - without == pytest.approx(share * 0.5 * 7 / 8)


def test_kept_levels_trade_memory_for_time_and_the_online_mode_needs_neither():
    kept, recomputed, online = (predict(SHAPE, COSTS, 10_582, 1, mode) for mode in scale.MODES)
    # 264 tokens of 384 channels in two bytes, and 6 heads of 196 weights in four, an image.
    assert kept.kept == 10_582 * (264 * 384 * 2 + 6 * 196 * 4)
    assert kept.seconds < recomputed.seconds
    assert online.bank_pass == online.kmeans == 0


def test_the_one_bank_of_the_online_mode_stops_growing():
    few, many, more = (predict(SHAPE, COSTS, images, 8, "online") for images in (10**4, 10**6, 10**8))
    assert few.bank == pytest.approx(predict(SHAPE, COSTS, 10**4, 8, "kept").bank)
    assert few.bank < many.bank == more.bank


def test_what_stops_a_run_first():
    assert first_stop(COSTS, predict(SHAPE, COSTS, 10_582, 1, "kept")).startswith("time: training")
    assert first_stop(COSTS, predict(SHAPE, COSTS, 10**9, 1, "recomputed")).startswith("memory: bank")
    in_float32 = replace(SHAPE, level_bytes=4)
    assert first_stop(COSTS, predict(in_float32, COSTS, 10**6, 1, "kept")).startswith("memory: kept")
