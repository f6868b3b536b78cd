import json

import pytest
import torch

from benchmarks import precision_curves
from hcl.engine.step import Losses

pytest.importorskip("faiss")
SMALL = [
    *("--steps", "4", "--images", "6", "--batch_size", "2", "--size", "64", "--clusters", "4"),
    *("--scored_clusters", "4", "--threads", "1"),
]


@pytest.fixture(scope="module")
def report() -> dict:
    return precision_curves.main(SMALL)


def test_every_variant_has_its_curve_and_its_scores(report):
    assert json.loads(json.dumps(report)) == report
    variants = report["variants"]
    assert [name for name in variants if name != "fp8"] == [
        "fp32",
        "plain",
        "bf16",
        "bf16_throughout",
        "fp32_other_start",
    ]
    assert report["within"].keys() == variants.keys() - {"fp32"}
    assert report["images"] == {"training": 6, "seen": 6}
    for variant in variants.values():
        assert len(variant["loss"]) == 4
        assert variant["from_fp32"].keys() == set(Losses._fields)
        assert len(variant["overclustering"]["seeds"]) == 5
        assert 0 < variant["overclustering"]["mean"]["miou"] < 1


def test_variants_start_alike_and_differ_as_their_names_say(report):
    worst = {name: v["from_fp32"]["total"]["worst"] for name, v in report["variants"].items()}
    assert worst["fp32"] == 0
    assert 0 < worst["plain"] < 1e-4 < worst["bf16"]
    # Whether bf16 keeps to what is allowed is for photographs to say: here one token more or less decides.
    for name, kept in report["within"].items():
        assert kept == (worst[name] <= precision_curves.ALLOWED)
    first = {name: variant["loss"][0] for name, variant in report["variants"].items()}
    assert first["plain"] == pytest.approx(first["fp32"], rel=1e-4)
    assert first["bf16"] == pytest.approx(first["fp32"], rel=1e-2)
    # Four clusters of a bank of six images are others from every start.
    assert first["fp32_other_start"] != pytest.approx(first["fp32"], rel=1e-2)


def test_deviations_are_relative_and_tell_the_worst_step():
    reference = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0]])
    curve = reference * torch.tensor([[1.0], [0.97]])
    found = precision_curves.deviations(curve, reference)
    assert found["prediction"] == pytest.approx({"worst": 0.03, "at_step": 2, "mean": 0.015}, abs=1e-6)
