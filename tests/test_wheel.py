"""The wheel works outside of the repository: commands, presets by name, types."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("hcl", "kernels", "pipelines", "configs")
FILES = ("pyproject.toml", "README.md")


def run(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel in it, built and installed without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in SOURCES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", folder=source)
    (wheel,) = (source / "dist").glob("*.whl")
    run(*pip, "install", str(wheel), "--no-deps", "--no-index", "--target", str(target), folder=source)
    return target


def test_modules_are_those_of_the_wheel_and_typed(installed, tmp_path):
    script = "import hcl, kernels, pipelines; print(hcl.__file__, kernels.__file__, pipelines.__file__)"
    files = run(sys.executable, "-c", script, folder=tmp_path, PYTHONPATH=str(installed)).split()
    for file in files:
        assert Path(file).is_relative_to(installed)
        assert Path(file).with_name("py.typed").exists()


def test_the_console_command_finds_a_preset_by_name(installed, tmp_path):
    command = installed / "bin" / "hcl-train"
    arguments = ("--config", "voc_vits8", "--print_config")
    printed = run(str(command), *arguments, folder=tmp_path, PYTHONPATH=str(installed))
    assert "name: dino_vits8" in printed
    assert "split: trainaug" in printed


def test_commands_have_the_name_by_which_they_are_called(installed, tmp_path):
    command = installed / "bin" / "hcl-evaluate"
    assert "usage: hcl-evaluate" in run(
        str(command), "--help", folder=tmp_path, PYTHONPATH=str(installed), COLUMNS="80"
    )


def test_packages_are_the_projects_alone(installed):
    top = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert top == {"bin", "hcl", "kernels", "pipelines"}


def test_every_preset_of_the_repository_is_in_the_wheel(installed):
    shipped = {path.name for path in (installed / "hcl" / "configs").iterdir()}
    assert shipped == {path.name for path in (ROOT / "configs").glob("*.yaml")}
