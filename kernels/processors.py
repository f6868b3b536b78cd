"""The number of processors available to this process."""

import os

from kernels.control_groups import processor_quota


def usable_processors() -> int:
    """Count the processors that this process may run on; all, if the system does not say.

    If a container's quota allows the time of fewer processors, their number is returned.
    """
    bound = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    return min(processors, processor_quota() or processors)
