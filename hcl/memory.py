"""How much memory there is yet."""

import psutil
import torch

from hcl.distributed import local_ranks
from kernels import control_groups

GIB = 2**30


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take: of its GPU, or its share of the machine or the container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    machine, container = psutil.virtual_memory().available, control_groups.free_memory()
    return (machine if container is None else min(machine, container)) // local_ranks()
