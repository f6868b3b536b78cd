"""What can be said of the image without building it, and of the files that tell others of the project."""

import re
import tomllib
from pathlib import Path

import yaml

import hcl
from tests.test_wheel import FILES, SOURCES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[list[str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_gets_what_the_wheel_is_made_of_and_the_pins():
    allowed = {
        line[1:].rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert allowed == {*SOURCES, *FILES, "constraints.txt"}


def test_the_image_runs_as_a_user_without_rights():
    users = [words[1] for words in instructions() if words[0] == "USER"]
    assert users == ["hcl"]
    assert instructions()[-1][0] == "CMD"


def test_the_image_installs_extras_that_exist():
    text = (ROOT / "Dockerfile").read_text()
    (named,) = re.findall(r'"/src\[\$EXTRA,([\w,]+)\]"', text)
    assert set(named.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert {"cpu", "cuda12", "cuda13"} <= PROJECT["optional-dependencies"].keys()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == hcl.__version__
    assert citation["preferred-citation"]["year"] == 2025
