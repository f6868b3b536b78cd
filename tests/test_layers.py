"""Arrows run one way: what a package may import of this project."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("kernels",),
    ("hcl.data",),
    ("pipelines",),
    ("hcl.models", "hcl.clustering"),
    ("hcl.engine", "hcl.evaluation"),
    ("hcl.figures",),
    ("hcl.inference", "hcl.export"),
    ("hcl.run_report", "hcl.explore"),
    ("hcl.commands",),
    ("benchmarks",),
    ("scripts",),
    ("tests",),
)
"""Each imports of those above it alone, and not of those beside it."""
LEVEL = {package: level for level, layer in enumerate(LAYERS) for package in layer}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def package_of(module: str) -> str:
    return next((name for name in LEVEL if f"{module}.".startswith(f"{name}.")), "")


def files_of(package: str) -> Iterator[Path]:
    return (ROOT / package.replace(".", "/")).rglob("*.py")


@pytest.mark.parametrize("package", LEVEL)
def test_a_package_imports_of_those_above_it_alone(package):
    found = {(file.name, module) for file in files_of(package) for module in imported(file)}
    assert found
    wrong = {
        (file, module)
        for file, module in found
        if (other := package_of(module)) and other != package and LEVEL[other] >= LEVEL[package]
    }
    assert not wrong


def test_kernels_import_nothing_else_of_the_project():
    modules = {module for file in files_of("kernels") for module in imported(file)}
    assert not {module for module in modules if module.split(".")[0] in ("hcl", "pipelines", "benchmarks")}


@pytest.mark.parametrize(("form", "other"), [("reference", "triton"), ("triton", "reference")])
def test_neither_form_of_a_kernel_imports_the_other(form, other):
    files = [file for file in files_of("kernels") if file.stem.startswith(form)]
    modules = {(file.parent.name, module) for file in files for module in imported(file)}
    assert modules
    assert not {
        (kernel, module) for kernel, module in modules if any(p.startswith(other) for p in module.split("."))
    }
