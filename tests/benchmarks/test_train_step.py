import json
import sys
from copy import deepcopy

import pytest
import torch

from benchmarks import published, steps, train_step
from hcl.engine.step import Losses
from hcl.models.frozen import freeze
from hcl.models.linear import Linear
from tests.forks import FORKS

pytest.importorskip("faiss")
SMALL = [
    *("--backbone", "tiny", "--batch_size", "2", "--size", "64", "--clusters", "4", "--rounds", "1"),
    "--no_compile",
]


@pytest.fixture
def no_memory(monkeypatch) -> None:
    """A variant's memory is measured in a process of its own, which knows nothing of what a test patches."""
    monkeypatch.setattr(train_step, "peak_mib", lambda *_: None)


@pytest.fixture
def no_rate(monkeypatch) -> None:
    """Products of 2048 rows take longer than all steps of a small model together."""
    monkeypatch.setattr(train_step, "matrix_rate", lambda *_: 1e9)


def test_the_report_sets_both_formats_against_the_published_step(monkeypatch, capsys):
    monkeypatch.setattr(train_step, "get_context", lambda _: FORKS)
    report = train_step.main(SMALL)
    assert json.loads(capsys.readouterr().out) == report
    variants = report["variants"]
    assert variants.keys() == {"published", "fp32", "bf16"}
    for name in ("fp32", "bf16"):
        assert report[f"speedup_{name}"] == pytest.approx(
            variants["published"]["ms_50"] / variants[name]["ms_50"]
        )
        assert variants[name]["split_ms"].keys() == {"backbone", "heads", "loss", "optimiser"}
        assert variants[name]["images_per_second"] > 0
    assert all(variant["peak_mib"] > 0 for variant in variants.values())
    assert all(rate > 0 for rate in report["matrix_flops_per_second"].values())
    # The commuted fuser spares products.
    assert 0 < report["flops"]["own"] < report["flops"]["published"]


@pytest.mark.usefixtures("no_memory", "no_rate")
def test_without_faiss_the_published_step_is_left_out(monkeypatch):
    monkeypatch.setattr(train_step, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "faiss", None)
    report = train_step.main(SMALL)
    assert report["variants"].keys() == {"fp32", "bf16"}
    assert not [name for name in report if name.startswith("speedup")]


@pytest.mark.usefixtures("no_memory", "no_rate")
def test_formats_are_measured_alone_where_they_are_named(monkeypatch):
    monkeypatch.setattr(train_step, "find_spec", lambda name: None)
    report = train_step.main([*SMALL, "--formats", "fp32"])
    assert report["variants"].keys() == {"fp32"}
    assert report["flops"]["own"] > 0


def test_the_variants_compute_the_same_step():
    bench = steps.build(train_step.parse(SMALL))
    theirs = steps.published_step(bench)()
    ours = steps.own_step(bench, "fp32", compiled=False)[0]().losses
    assert isinstance(theirs, Losses)
    torch.testing.assert_close(torch.stack(theirs), torch.stack(ours), atol=1e-5, rtol=0)


def test_products_of_a_frozen_backbone_count():
    bench = steps.build(train_step.parse(SMALL))
    frozen, plain = deepcopy(bench.model.backbone), published.plain(bench.model).backbone
    freeze(frozen, torch.float32)
    with torch.no_grad():
        counted, expected = (
            train_step.flops(lambda model=model: model.pair(bench.views)) for model in (frozen, plain)
        )
    assert counted == expected > 0


def test_the_published_model_multiplies_by_torch_alone():
    model = steps.build(train_step.parse(SMALL)).model
    assert not any(isinstance(module, Linear) for module in published.plain(model).modules())
    assert any(isinstance(module, Linear) for module in model.modules())
