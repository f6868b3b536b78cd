"""Limits of containers, of files like the kernel's."""

from pathlib import Path

import pytest

from kernels import control_groups
from kernels.control_groups import free_memory, processor_quota

NO_LIMIT = 9223372036854771712  # what version 1 says


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Makes the process a member of groups, with the given files."""

    def make(membership: str, files: dict[str, object]) -> None:
        for name, content in files.items():
            path: Path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        (tmp_path / "membership").write_text(membership)
        monkeypatch.setattr(control_groups, "ROOT", tmp_path / "cgroup")
        monkeypatch.setattr(control_groups, "MEMBERSHIP", tmp_path / "membership")

    return make


def test_version_2_tells_memory_and_processors(groups):
    stat = "anon 600\nfile 300\ninactive_file 250\nactive_file 50"
    files = {"memory.max": 1000, "memory.current": 900, "memory.stat": stat, "cpu.max": "150000 100000"}
    groups("0::/\n", files)
    assert free_memory() == 350
    assert processor_quota() == 2


def test_version_1_tells_them_by_controller(groups):
    files = {
        "memory/job/memory.limit_in_bytes": 1000,
        "memory/job/memory.usage_in_bytes": 900,
        "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 250",
        "cpu/job/cpu.cfs_quota_us": 300000,
        "cpu/job/cpu.cfs_period_us": 100000,
    }
    groups("5:cpu,cpuacct:/job\n4:memory:/job\n0::/elsewhere\n", files)
    assert free_memory() == 350
    assert processor_quota() == 3


def test_a_container_that_sees_its_group_as_the_root_of_a_tree_finds_it_there(groups):
    files = {"memory/memory.limit_in_bytes": 1000, "memory/memory.usage_in_bytes": 400}
    groups("4:memory:/docker/0123\n", files)
    assert free_memory() == 600


def test_the_narrowest_of_the_groups_around_counts(groups):
    files = {
        "pod/memory.max": 500,
        "pod/memory.current": 400,
        "pod/one/memory.max": 1000,
        "pod/one/memory.current": 300,
        "pod/cpu.max": "800000 100000",
        "pod/one/cpu.max": "20000 100000",
    }
    groups("0::/pod/one\n", files)
    assert free_memory() == 100
    assert processor_quota() == 1


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {"memory.max": "max", "memory.current": 900, "cpu.max": "max 100000"}),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}),
        ("0::/a\n", {}),
        ("", {}),
    ],
)
def test_without_a_limit_there_is_none(groups, membership, files):
    groups(membership, files)
    assert free_memory() is None
    assert processor_quota() is None


def test_the_largest_number_of_version_1_limits_nothing_that_there_is(groups):
    files = {"memory/memory.limit_in_bytes": NO_LIMIT, "memory/memory.usage_in_bytes": 400}
    groups("4:memory:/\n", files)
    assert free_memory() > 2**60


def test_where_there_are_no_control_groups_nothing_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(control_groups, "MEMBERSHIP", tmp_path / "none")
    assert free_memory() is None
    assert processor_quota() is None
