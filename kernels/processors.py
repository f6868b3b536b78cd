"""How many processors there are for this process."""

import os


def usable_processors() -> int:
    """Count the processors that this process may run on; where the system does not tell, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
