"""How many processors there are for this process."""

import os

from kernels.control_groups import processor_quota


def usable_processors() -> int:
    """Count the processors that this process may run on; where the system does not tell, all there are.

    Where a container gives it the time of fewer, those count.
    """
    bound = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    return min(processors, processor_quota() or processors)
