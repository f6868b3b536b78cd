from types import SimpleNamespace

import pytest
import torch

from hcl import memory


@pytest.mark.parametrize(("container", "free"), [(None, 500), (300, 150), (5000, 500)])
def test_ranks_share_what_machine_and_container_have_left(monkeypatch, container, free):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(memory.control_groups, "free_memory", lambda: container)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.free_memory(torch.device("cpu")) == free
