"""How much memory is free."""

import psutil
import torch

from hcl.distributed import local_ranks
from kernels import control_groups

GIB = 2**30


def free_memory(device: torch.device) -> int:
    """Bytes free to this process: on its GPU, or its share of the machine's or the container's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    machine, container = psutil.virtual_memory().available, control_groups.free_memory()
    return (machine if container is None else min(machine, container)) // local_ranks()
