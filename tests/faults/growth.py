"""What a long run holds on to: ``python -m tests.faults.growth STEPS ...`` with train.py's command line.

Prints one JSON object: memory (bytes), open files, threads and child processes at points along the run, and
by how many bytes a step memory grew from the third quarter of the run to the fourth.
"""

import ctypes
import gc
import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from hcl.commands import train
from hcl.engine.step import TrainingStep

POINTS = 12
PAGE = os.sysconf("SC_PAGE_SIZE")


def holdings() -> dict[str, int]:
    """What this process holds now, without what it has freed and the allocator keeps for later.

    Pages of files, as those of libraries, do not count: the kernel takes them away and brings them back.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    process = Path("/proc/self")
    _, resident, of_files, *_ = map(int, (process / "statm").read_text().split())
    return {
        "memory": (resident - of_files) * PAGE,
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "children": sum(len(path.read_text().split()) for path in process.glob("task/*/children")),
    }


def growth(steps: int, arguments: list[str]) -> dict:
    """Train with these arguments, looking at the process at equal distances over ``steps`` steps."""
    original, done = TrainingStep.__call__, 0
    seen: list[dict[str, int]] = []

    def counting(self, views):
        nonlocal done
        done += 1
        if done % (steps // POINTS) == 0:
            seen.append({"step": done, **holdings()})
        return original(self, views)

    with mock.patch.object(TrainingStep, "__call__", counting):
        status = train.main(arguments)
    third, fourth = (
        np.median([point["memory"] for point in seen[n * POINTS // 4 :][: POINTS // 4]]) for n in (2, 3)
    )
    return {
        "status": status,
        "steps": done,
        "bytes_per_step": round(float(fourth - third) / (steps / 4)),
        "seen": seen[:POINTS],
    }


if __name__ == "__main__":
    print(json.dumps(growth(int(sys.argv[1]), sys.argv[2:])))
