import os

import pytest

from kernels import processors
from kernels.processors import usable_processors


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    monkeypatch.setattr(processors, "processor_quota", lambda: None)


def test_processors_that_this_process_may_not_use_do_not_count(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    assert usable_processors() == 3


@pytest.mark.parametrize(("quota", "usable"), [(2, 2), (3, 3), (9, 3)])
def test_a_container_that_gives_the_time_of_fewer_processors_has_so_many(monkeypatch, quota, usable):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    monkeypatch.setattr(processors, "processor_quota", lambda: quota)
    assert usable_processors() == usable


def test_where_the_system_does_not_tell_those_of_the_machine_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_processors() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_processors() == 1
