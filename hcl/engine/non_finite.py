"""Dump a step that gave NaN or infinity; ``python -m hcl.engine.non_finite FILE`` computes it again."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from hcl.command_line import reported
from hcl.distributed import World
from hcl.engine.checkpoint import load_checkpoint, write_state
from hcl.engine.config import config_from
from hcl.engine.learner import Learner
from hcl.engine.loss_record import FailedStep
from hcl.engine.step import Losses, Views
from hcl.files import written_whole
from hcl.models.weights import CheckpointError


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient became NaN or infinite; the message names the step, its images and the dump."""


def dump(
    learner: Learner, failed: FailedStep, images: dict[int, str], views: list[Views], folder: Path
) -> Path:
    """Write a file that reproduces a failed step.

    Args:
        learner: halted by the step, so that its weights and centroids are those that the step saw.
        failed: the failed step.
        images: the step's images on this rank, names by data-set index in the order of the views.
        views: this rank's micro-batches, as `TrainingStep` took them.
        folder: the run's folder.

    Returns:
        The path of the file: a checkpoint without token banks, with ``failed_step``, ``images``, ``losses``
        and ``views`` in addition.
    """
    rank = f"_rank_{learner.world.rank}" if learner.world.size > 1 else ""
    path = folder / f"non_finite_step_{failed.step}{rank}.pt"
    extra = {
        "failed_step": failed.step,
        "images": images,
        "losses": failed.losses,
        "views": [(first.cpu(), second.cpu()) for first, second in views],
    }
    with written_whole(path) as file:
        write_state(learner.state_dict() | extra, file)
    return path


def refusal(failed: FailedStep, images: str, path: Path) -> NonFiniteLossError:
    """Return the error that reports a failed step, its images and its dump."""
    figures = ", ".join(f"{name} {value}" for name, value in failed.losses.items())
    return NonFiniteLossError(
        f"the loss or gradient of step {failed.step} is not finite ({figures}), so the step was not applied; "
        f"its images: {images}. Run python -m hcl.engine.non_finite {path} to compute the step again, or "
        "train with --on_non_finite skip to leave such steps out"
    )


def replay(path: Path) -> Losses:
    """Compute the failed step of a dump again, on the CPU, where fp8 is computed as bf16.

    A dump of one rank among several holds only that rank's images, and the means are over these.

    Raises:
        FileNotFoundError, CheckpointError: the file is missing, damaged, or not such a dump.
    """
    state: dict[str, Any] = load_checkpoint(path)
    if "failed_step" not in state:
        raise CheckpointError(f"{path} is not a dump of a failed step")
    if state["config"]["precision"] == "fp8":
        state["config"]["precision"] = "bf16"
    learner = Learner(config_from(state["config"], path), World.alone(torch.device("cpu")))
    learner.load_state_dict(state, path)
    learner.training_step.halted.fill_(True)
    return learner.training_step(state["views"]).losses


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hcl.engine.non_finite", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("dump", type=Path, help="file non_finite_step_*.pt of a stopped run")
    given = parser.parse_args()

    def show() -> int:
        for name, value in replay(given.dump)._asdict().items():
            print(f"{name} {value.item()}")
        return 0

    return reported(parser.prog, show)


if __name__ == "__main__":
    sys.exit(_main())
