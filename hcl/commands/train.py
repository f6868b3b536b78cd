"""Train HCL from the command line."""

import sys
from contextlib import nullcontext
from pathlib import Path

from hcl import __version__
from hcl.command_line import preset_first, program_name, reported
from hcl.distributed import connect
from hcl.engine.config import TrainConfig
from hcl.engine.determinism import reproducible
from hcl.engine.run_folder import claimed
from hcl.engine.trainer import Trainer
from hcl.settings_parser import SettingsParser

PROGRAM = program_name("train.py", installed="hcl-train")


def build_parser() -> SettingsParser:
    """Build the command line: the fields of `TrainConfig`, a preset to start from, and ``--resume``."""
    parser = SettingsParser(
        prog=PROGRAM, version=__version__, description="Train HCL on images, without labels."
    )
    parser.add_argument("--config", action="config", help="name of a preset, or a YAML file")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output, if there is one")
    parser.add_settings(TrainConfig)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Train as the arguments say.

    Returns the exit status: 0 done, 2 bad input, 130 interrupted at once, 143 stopped by a signal, with a
    checkpoint saved if training had begun.
    """

    def run() -> int:
        parser = build_parser()
        parsed = parser.parse_args(preset_first(sys.argv[1:] if arguments is None else arguments))
        settings = parser.instantiate(parsed)
        resume = settings.pop("resume")
        settings.pop("config")
        return 0 if train(TrainConfig(**vars(settings)), resume=resume) else 143

    return reported(PROGRAM, run, after_interrupt="--resume continues from the last checkpoint")


def train(config: TrainConfig, *, resume: bool) -> bool:
    """Train on all ranks; return False if a signal ended training early."""
    with (
        reproducible(config.deterministic),
        connect(config.device) as world,
        claimed(Path(config.output)) if world.is_main else nullcontext(),
    ):
        return Trainer(config, world, resume=resume).run()


if __name__ == "__main__":
    sys.exit(main())
