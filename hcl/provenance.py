"""How results were computed: enough to compute them again."""

import platform
import shlex
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import hcl
from hcl.distributed import World

LIBRARIES = (
    *("torchmetrics", "numpy", "scipy", "triton", "nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    *("pydensecrf2", "infomap"),
)
"""Libraries that affect the numbers, if they are installed."""


def provenance(world: World) -> dict[str, Any]:
    """The command, device, number of ranks, and versions of Python, this project and its libraries."""
    return {
        "command": shlex.join(sys.argv),
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu",
        "ranks": world.size,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Versions by name; torch's own version string names its build too, which its package's may not."""
    own = {"python": platform.python_version(), "hcl": hcl.__version__, "torch": torch.__version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            own[name] = version(name)
    return own
