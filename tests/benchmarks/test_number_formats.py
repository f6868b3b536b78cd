import json

import torch

from benchmarks import number_formats

SMALL = [
    *("--images", "4", "--batch_size", "2", "--size", "64", "--clusters", "8", "--threads", "1"),
]


def test_fp8_changes_more_than_bf16_and_neither_changes_much(capsys):
    report = number_formats.main(SMALL)
    assert json.loads(capsys.readouterr().out) == report
    changed = report["changed_from_fp32"]
    assert 0 < changed["bf16"]["z_relative"] < changed["fp8"]["z_relative"] < 0.1
    assert 0.9 < changed["fp8"]["projected_cosine_least"] < changed["fp8"]["projected_cosine_mean"] < 1
    for name in ("foreground_flags_changed", "nearest_clusters_changed"):
        assert 0 <= changed["fp8"][name] < 0.3


def test_the_reference_is_not_changed_from_itself():
    rows = torch.nn.functional.normalize(torch.randn(20, 4), dim=1)
    same = number_formats.Tokens(torch.randn(20, 6), rows, torch.rand(20) > 0.5)
    found = number_formats.change(same, same, rows[:3])
    assert found["z_relative"] == found["foreground_flags_changed"] == found["nearest_clusters_changed"] == 0
