"""What the commands and the Python of all pages run on."""

import pytest

from tests.docs.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory) -> Sandbox:
    return Sandbox.made_in(tmp_path_factory.mktemp("sandbox"))
