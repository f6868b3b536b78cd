"""A rank of `program.py`, on a GPU of its own that is not there: `rank.py DRIVER [[KERNELS, ...], ...]`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import ModuleType
from typing import Any

from tests.absent_gpu.program import begin, end, run


def main(driver: str, commands: list[list[str]]) -> int:
    """The exit status of the first command that fails, else 0."""
    emulation = begin(driver)
    stand_in_for_nccl(emulation)
    return run(emulation, commands)


def stand_in_for_nccl(emulation: ModuleType) -> None:
    """Have Gloo do what NCCL does, and refuse what NCCL refuses."""
    import torch
    import torch.distributed as dist
    from torch.utils._pytree import tree_leaves

    from hcl.engine import step

    join, compute, times = dist.init_process_group, emulation.compute, count()

    def by_gloo(backend: str, *, device_id: torch.device, store: dist.Store, **how: Any) -> None:
        assert (backend, device_id) == ("nccl", emulation.GPU)
        join("gloo", store=dist.PrefixStore(f"command {next(times)}", store), **how)

    def refusing(func: Any, args: tuple, kwargs: dict) -> Any:
        if func.namespace == "c10d":
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, torch.Tensor):
                    assert isinstance(tensor, emulation.OnGPU), f"{func}: a tensor in main memory"
                    assert tensor.is_contiguous(), f"{func}: not contiguous"
        return compute(func, args, kwargs)

    dist.init_process_group = by_gloo
    dist.distributed_c10d._get_object_coll_device = lambda group=None: "cuda"
    emulation.compute = refusing
    step.DistributedDataParallel = averaging()


def averaging() -> type:
    """A class in the place of DistributedDataParallel, whose C++ knows no tensors but torch's own."""
    import torch
    import torch.distributed as dist

    class Averaging(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module, self.averages = module, True
            for weight in module.parameters():
                dist.broadcast(weight.data, src=0)
                weight.register_post_accumulate_grad_hook(self._average)

        def _average(self, weight: torch.Tensor) -> None:
            if self.averages:
                dist.all_reduce(weight.grad)
                weight.grad /= dist.get_world_size()

        @contextmanager
        def no_sync(self) -> Iterator[None]:
            self.averages = False
            yield
            self.averages = True

        def forward(self, *given: torch.Tensor) -> Any:
            return self.module(*given)

    return Averaging


if __name__ == "__main__":
    end(main(sys.argv[1], json.loads(sys.argv[2])))
