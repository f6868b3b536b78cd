"""A run's log is read as far as it is whole."""

import json

import pytest

from hcl.engine.log_reader import read_records


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert read_records(path) == [{"step": 1}]


@pytest.mark.parametrize("line", ['{"step": 2, "lo', "[1]"])
def test_another_line_that_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*log\.jsonl"):
        read_records(path)
