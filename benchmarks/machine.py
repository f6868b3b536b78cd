"""Description of the machine of a measurement, and output of its report."""

import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipelines import dali


def machine(*packages: str, device: str = "cpu") -> dict[str, Any]:
    """Describe the processor, the GPU if it is measured, threads, load, date and versions of packages."""
    described = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "load_1min": os.getloadavg()[0],
        "date": date.today().isoformat(),
        "versions": {name: _version(name) for name in packages},
    }
    if device == "cuda":
        described |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return described


def _version(package: str) -> str:
    """Return a package's version; DALI's distributions are named after their versions of CUDA, too."""
    installed: str = dali.require().__version__ if package == "nvidia-dali" else version(package)
    return installed


def processor() -> str:
    """Return the processor's name if Linux reports it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def give(report: dict[str, Any]) -> dict[str, Any]:
    """Print a report as one JSON object, with the load at its end, and return it."""
    report["load_1min_after"] = os.getloadavg()[0]
    json.dump(report, sys.stdout, indent=2)
    print()
    return report
