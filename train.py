"""Train HCL: ``python train.py --config configs/quickstart.yaml``; ``--help`` lists every setting."""

import sys
from contextlib import nullcontext
from pathlib import Path

from jsonargparse import ArgumentParser

from hcl.command_line import BAD_INPUT, add_settings, preset_first
from hcl.distributed import connect
from hcl.engine.config import TrainConfig
from hcl.engine.determinism import reproducible
from hcl.engine.run_folder import claimed
from hcl.engine.trainer import Trainer


def build_parser() -> ArgumentParser:
    """The command line: the fields of `TrainConfig`, a preset to start from, and ``--resume``."""
    parser = ArgumentParser(prog="train.py", description="Train HCL from a folder of images.")
    parser.add_argument(
        "--config", action="config", help="preset or saved configuration, such as configs/*.yaml"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --output where there is one"
    )
    add_settings(parser, TrainConfig)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Train as the arguments say.

    Returns the exit status: 0 done, 2 bad input, 130 interrupted at once, 143 stopped by a signal and saved.
    """
    parser = build_parser()
    arguments = preset_first(sys.argv[1:] if arguments is None else arguments)
    parsed = parser.parse_args(arguments)
    try:
        settings = parser.instantiate(parsed)
        resume = settings.pop("resume")
        settings.pop("config")
        config = TrainConfig(**vars(settings))
        with (
            reproducible(config.deterministic),
            connect(config.device) as world,
            claimed(Path(config.output)) if world.is_main else nullcontext(),
        ):
            finished = Trainer(config, world).run(resume=resume)
    except BAD_INPUT as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: interrupted; --resume continues from the last checkpoint", file=sys.stderr)
        return 130
    return 0 if finished else 143


if __name__ == "__main__":
    sys.exit(main())
