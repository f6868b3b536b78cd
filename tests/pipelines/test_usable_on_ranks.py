"""The ranks of a machine look at a data set's files together; machines, each at all of them."""

import json
import os
from pathlib import Path

import pytest

from hcl.data import checks
from hcl.data.folder import open_folder
from hcl.distributed import connect
from pipelines.usable import usable
from tests.data.corpus import HIDDEN, REFUSED, USED, write
from tests.ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of files that it reads nevertheless


def _find(root: Path, machines: int) -> None:
    """What each of two ranks does: leave files out, then refuse them; told in a line."""
    if machines == 2:
        os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    looked_at, look = [], checks.image_problem
    checks.image_problem = lambda path: looked_at.append(path) or look(path)
    with connect("cpu") as world:
        left = usable(open_folder(root), "skip", ranks=world)
        by_skip = len(looked_at)
        refusal = ""
        try:
            usable(open_folder(root), "raise", ranks=world)
        except ValueError as error:
            refusal = str(error)
        told = (by_skip, len(looked_at) - by_skip, [s.origin for s in left.samples], left.skipped, refusal)
        for rank in range(world.size):
            world.barrier()
            if rank == world.rank:
                print(json.dumps(told), flush=True)


@pytest.mark.parametrize("machines", [1, 2])
def test_each_file_is_looked_at_once_a_machine_and_all_ranks_find_the_same(tmp_path, machines):
    cases = [*USED[:3], *REFUSED[:3], *HIDDEN]
    write(tmp_path / "images", *cases)
    dataset = open_folder(tmp_path / "images")
    ranks = [json.loads(line) for line in on_ranks(2, _find, tmp_path / "images", machines).splitlines()]
    alone = usable(dataset, "skip")
    with pytest.raises(ValueError, match="empty") as refused:
        usable(dataset, "raise")
    for place in (0, 1):
        assert sum(rank[place] for rank in ranks) == machines * len(dataset)
    for _, _, left, skipped, refusal in ranks:
        assert left == [sample.origin for sample in alone.samples]
        assert skipped == list(alone.skipped)
        assert refusal == str(refused.value)
    assert len(alone.skipped) == len(REFUSED[:3]) + len(HIDDEN)
