"""The processor time and memory that Linux's control groups, as used by containers, leave to this process.

In version 2 all limits of a group are files in one folder; version 1 has a tree of folders for each
controller. A group's limits also hold for the groups within it. A limit that cannot be read is ignored.
"""

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def processor_quota() -> int | None:
    """Return the number of processors that this process may use, rounded up; None without a limit."""
    shares = []
    for group in _groups("cpu"):
        quota, period = group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"
        limit = _words(group / "cpu.max") or [*_words(quota), *_words(period)]
        if len(limit) == 2 and limit[0].isdigit():  # neither "max" nor -1
            shares.append(max(math.ceil(int(limit[0]) / int(limit[1])), 1))
    return min(shares, default=None)


def free_memory() -> int | None:
    """Return the bytes that this process may still use, idle file pages included; None without a limit."""
    free = []
    for group in _groups("memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if limit and used and limit[0].isdigit():
            free.append(max(int(limit[0]) - int(used[0]) + _idle_pages(group), 0))
    return min(free, default=None)


def _idle_pages(group: Path) -> int:
    """Return the bytes of cached files that the kernel drops before it denies memory to the group."""
    words = _words(group / "memory.stat")
    found = dict(zip(words[::2], words[1::2], strict=False))
    # In version 1 the plain name excludes the groups within.
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of its parents, as far as they are visible."""
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tree = ROOT / controller if controllers else ROOT
        group = tree / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(tree))


def _words(file: Path) -> list[str]:
    """Return the words of a file; none if it is missing or unreadable."""
    try:
        return file.read_text().split()
    except OSError:
        return []
