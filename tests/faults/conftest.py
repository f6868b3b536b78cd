"""The victim of the faults, which saves itself after every step, and what it must come to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hcl.commands import train
from tests.engine.conftest import scenes_root
from tests.engine.support import arguments, same, saved_state, tiny_run

__all__ = ["scenes_root"]


@pytest.fixture
def settings(scenes_root, tmp_path) -> dict:
    """Nine steps in three epochs, and a checkpoint after each."""
    return tiny_run(scenes_root, tmp_path / "run") | {"checkpoint_every": 1}


@pytest.fixture(scope="session")
def undisturbed(scenes_root, tmp_path_factory) -> dict:
    """What an undisturbed run saves last."""
    output: Path = tmp_path_factory.mktemp("undisturbed")
    assert train.main(arguments(tiny_run(scenes_root, output) | {"checkpoint_every": 1})) == 0
    return saved_state(output)


@pytest.fixture
def continues(settings, undisturbed) -> Callable[[], bool]:
    """Continue the run to its end, and tell whether it came to what the undisturbed run came to."""

    def resume() -> bool:
        assert train.main([*arguments(settings), "--resume"]) == 0
        return same(saved_state(settings["output"]), undisturbed)

    return resume
