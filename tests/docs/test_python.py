"""Every piece of Python in the documentation runs: those of a page one after another, in one namespace."""

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks

ONLY_COMPILED = {
    "push_to_hub(": "it wants the network",
    "InferenceSession(": "exporting takes long; tests/export runs the exported programs",
}
"""What a block holds that no test of the documentation can run, with the reason."""
WITH_CODE = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(page, sandbox, tmp_path, monkeypatch):
    sandbox.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for block in blocks(page, "python"):
        # As many empty lines before it as the page has, so that a traceback names the page's line.
        code = "\n" * (block.line - 1) + block.text
        compiled = compile(code, str(page), "exec")
        if not any(mark in block.text for mark in ONLY_COMPILED):
            exec(compiled, namespace)
