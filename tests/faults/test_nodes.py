"""Ranks of two nodes that torchrun restarts: those of one node do not notice that the other's are gone."""

import os
import random
import subprocess
import sys

import pytest

from tests.ranks import ROOT


@pytest.mark.slow
def test_ranks_of_two_nodes_meet_again_though_only_one_node_has_failed(tmp_path):
    launch = [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc_per_node=1",
            "--max-restarts=1",
        ),
        *("--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{random.randrange(20_000, 30_000)}"),
        *("--module", "tests.faults.node", str(tmp_path)),
    ]
    set_as_the_page_says = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    nodes = [
        subprocess.Popen(launch, cwd=ROOT, env=os.environ | set_as_the_page_says | {"NODE": node})
        for node in ("dies", "waits")
    ]
    try:
        assert [node.wait(timeout=120) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "dies.met": "again",
        "waits.met": "again",
    }
