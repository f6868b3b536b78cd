"""Programs on a GPU that is not there: nothing mixes devices, and the numbers are the CPU's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from hcl.commands import evaluate, train
from tests.engine.support import arguments, records, tiny_run, write_tiny_scenes
from tests.evaluation.conftest import QUICK

HERE = Path(__file__).parent
TORCH = Path(torch.__file__).parent
COMPILER = shutil.which("c++")
PICTURES = ["--data.kind=scenes", "--data.split=val", "--images=4", "--shown=2", "--components=3"]
PROGRAMS = {"train.py": train.main, "evaluate.py": evaluate.main}

pytestmark = [
    pytest.mark.skipif(torch.backends.cuda.is_built(), reason="needs a torch without CUDA"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    library = tmp_path_factory.mktemp("driver") / "driver.so"
    found = [f"-isystem{TORCH / 'include'}", f"-L{TORCH / 'lib'}", f"-Wl,-rpath,{TORCH / 'lib'}"]
    options = ["-std=c++20", "-shared", "-fPIC", *found, "-lc10", "-ltorch_cpu"]
    subprocess.run([COMPILER, HERE / "driver.cpp", *options, "-o", library], check=True)
    return library


RANKS = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "--module")


def python(
    module: str, *told: str | Path, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """A process of its own, because torch must find the driver when it is imported."""
    own = {"PYTHONPATH": str(HERE.parents[1]), "HCL_TRACEBACK": "1"}
    command = [sys.executable, "-m", *launcher, f"tests.absent_gpu.{module}", *told]
    environment = os.environ | own
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def commands(scenes: Path, output: Path, device: str, kernels: str) -> list[list[str]]:
    """Two runs, of which one is resumed and one is online, and scores; first the form of the kernels."""
    run = tiny_run(scenes, output / "run") | {"device": device, "checkpoint_every": 2}
    online = run | {"output": output / "online", "epochs": 1, "clustering.mode": "online"}
    return [
        ["torch", "train.py", *arguments(run | {"epochs": 2})],
        ["torch", "train.py", *arguments(run), "--resume"],
        [kernels, "train.py", *arguments(online)],
        *(["torch", "evaluate.py", *told, f"--device={device}"] for told in scoring(scenes, output)),
    ]


def scoring(scenes: Path, output: Path) -> list[list[str]]:
    head = f"--checkpoint={output / 'run' / 'checkpoint.pt'}"
    data = ["--data.kind=scenes", f"--data.root={scenes}", "--data.split=val", "--size=64", "--batch_size=2"]
    classifier = f"--classifier={output / 'linear-probe' / 'linear_classifier.pth.tar'}"
    own = {
        "linear-probe": [head],
        "linear": [head, classifier, "--crf"],
        "overcluster": [head, "--clusters=6"],
        "cluster": [head],
        "fully-unsupervised": [head],
        "retrieval": [head],
        "foreground": ["--backbone.name=tiny"],
    }
    return [
        [protocol, *data, *QUICK[protocol], *settings, f"--output={output / protocol}"]
        for protocol, settings in own.items()
    ]


def showing(scenes: Path, output: Path) -> list[list[str]]:
    """What draws pictures of a run, on the GPU."""
    head = f"--checkpoint={output / 'run' / 'checkpoint.pt'}"
    maps = ["--size=64", "--clusters=4", "--crf", f"--output={output / 'labels'}"]
    told = [
        ["segment", str(scenes / "JPEGImages"), head, *maps],
        ["components", head, "--size=64", f"--output={output / 'components'}"],
        ["report", str(output / "run"), f"--data.root={scenes}", *PICTURES],
    ]
    return [["torch", "evaluate.py", *command, "--device=cuda"] for command in told]


def numbers(output: Path) -> list[tuple[str, object]]:
    """All that the commands have found out, each number by its place."""
    noted = {run: records(output / run, "step", "clustering") for run in ("run", "online")}
    results = {name: json.loads((output / name / "metrics.json").read_text())["results"] for name in QUICK}
    found = [(keystr(place), value) for place, value in tree_flatten_with_path((noted, results))[0]]
    return [(place, value) for place, value in found if "second" not in place]


def test_what_a_gpu_refuses_is_refused(driver):
    found = python("mixtures", driver)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_the_programs_run_there_and_on_two_and_find_what_they_find_on_the_cpu(driver, tmp_path):
    scenes, here, there, by_ranks = (tmp_path / name for name in ("scenes", "here", "there", "by_ranks"))
    write_tiny_scenes(scenes)
    for _, name, *told in commands(scenes, here, "cpu", "torch"):
        assert PROGRAMS[name](told) == 0
    on_gpu = [*commands(scenes, there, "cuda", "triton"), *showing(scenes, there)]
    on_two = commands(scenes, by_ranks, "cuda", "torch")
    for program, told, launcher in (("program", on_gpu, ()), ("rank", on_two, RANKS)):
        done = python(program, driver, json.dumps(told), launcher=launcher)
        assert done.returncode == 0, done.stderr
    expected = numbers(here)
    for found in (numbers(there), numbers(by_ranks)):
        assert [place for place, _ in found] == [place for place, _ in expected]
        for (place, value), (_, same) in zip(found, expected, strict=True):
            assert value == (pytest.approx(same, rel=1e-4) if isinstance(same, float) else same), place
