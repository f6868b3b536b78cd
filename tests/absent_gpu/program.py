"""Commands of this project on a GPU that is not there, in turn: `program.py DRIVER [[KERNELS, ...], ...]`."""

import ctypes
import json
import os
import sys
from types import ModuleType

FUSED = {
    "hcl_kernels::fba_forward",
    "hcl_kernels::fba_backward",
    "hcl_kernels::foreground_mask",
    "hcl_kernels::fuse",
    "hcl_kernels::fuse_backward",
    "hcl_kernels::nearest_centroid",
    "hcl_kernels::segment_sums",
}
"""What training in the online mode runs of Triton's forms."""


def begin(driver: str) -> ModuleType:
    """The emulation, in place before anything of the project is imported."""
    ctypes.CDLL(driver, mode=ctypes.RTLD_GLOBAL)
    from tests.absent_gpu import emulation

    emulation.install()
    return emulation


def end(status: int) -> None:
    """Leave at once: the thread of torch that went backward on the device would be told to abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main(driver: str, commands: list[list[str]]) -> int:
    """The exit status of the first command that fails, else 0."""
    return run(begin(driver), commands)


def run(emulation: ModuleType, commands: list[list[str]]) -> int:
    """Run the commands in turn, each on the kernels that come first; the status of the first that fails."""
    from hcl.commands import evaluate, train

    programs = {"train.py": train.main, "evaluate.py": evaluate.main}
    for kernels, name, *arguments in commands:
        with emulation.Emulation(kernels) as gpu:
            if status := programs[name](arguments):
                return status
        fused = FUSED & gpu.operations
        assert fused == (FUSED if kernels == "triton" else set()), f"{name} on {kernels}: {fused}"
    return 0


if __name__ == "__main__":
    end(main(sys.argv[1], json.loads(sys.argv[2])))
