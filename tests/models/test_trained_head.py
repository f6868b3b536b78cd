"""What a head's file records beside its weights."""

import pytest

from hcl.models.trained_head import recorded_keep_mass
from hcl.models.weights import CheckpointError


@pytest.mark.parametrize("share", [0.7, 1.0, 1])
def test_the_share_that_was_foreground_is_what_the_file_records(share):
    assert recorded_keep_mass({"config": {"clustering": {"keep_mass": share}}}, "own.pt") == share


@pytest.mark.parametrize("checkpoint", [{}, {"config": None}, {"config": {"clustering": None}}])
def test_a_file_may_leave_it_open(checkpoint):
    assert recorded_keep_mass(checkpoint, "hcl.pth.tar") is None


@pytest.mark.parametrize("told", [{"keep_mass": 0}, {"keep_mass": 1.1}, {"keep_mass": "most"}, {}, "all"])
def test_what_is_no_share_is_refused(told):
    with pytest.raises(CheckpointError, match=r"own\.pt records"):
        recorded_keep_mass({"config": {"clustering": told}}, "own.pt")
