"""What the prose names in passing exists: files and folders, modules that are started, targets of make."""

import re
from importlib.util import find_spec

import pytest

from tests.docs.blocks import PAGES, ROOT

CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PATHS = re.compile(r"\b(?:tests|hcl|kernels|pipelines|benchmarks|configs|scripts|docs)/[\w./-]*\w")
MADE_BY_COMMANDS = ("benchmarks/results/",)
PLACEHOLDER = re.compile(r"NAME|\*|<")


def mentions(pattern: re.Pattern) -> set[tuple[str, str]]:
    """Page and what the pattern finds in its inline code, first group or all; placeholders are left out."""
    return {
        (page.relative_to(ROOT).as_posix(), found)
        for page in PAGES
        for code in CODE.findall(page.read_text(encoding="utf-8"))
        if not PLACEHOLDER.search(code)
        for found in pattern.findall(code)
    }


@pytest.mark.parametrize(("page", "path"), sorted(mentions(PATHS)))
def test_a_path_is_there(page, path):
    assert path.startswith(MADE_BY_COMMANDS) or (ROOT / path).exists()


@pytest.mark.parametrize(("page", "module"), sorted(mentions(re.compile(r"python -m ([\w.]+)"))))
def test_a_module_is_there(page, module):
    assert find_spec(module)


@pytest.mark.parametrize(("page", "target"), sorted(mentions(re.compile(r"^make ([a-z]+)$"))))
def test_a_target_is_there(page, target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
