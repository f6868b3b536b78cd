"""Score tokens on labelled images: ``python evaluate.py overcluster --help``, ``... linear-probe --help``."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from hcl.command_line import BAD_INPUT, preset_first
from hcl.distributed import choose_device
from hcl.evaluation import linear_probe, overclustering
from hcl.evaluation.protocol import ProtocolConfig
from hcl.evaluation.report import complete, print_report, write_metrics

PROTOCOLS: dict[str, tuple[type[ProtocolConfig], Callable[..., dict[str, Any]], str]] = {
    "overcluster": (
        overclustering.OverclusteringConfig,
        overclustering.run,
        "k-means of all tokens, each cluster standing for one class",
    ),
    "linear-probe": (
        linear_probe.LinearProbeConfig,
        linear_probe.run,
        "train a 1x1 convolution on frozen tokens and score its predictions",
    ),
}


def build_parser() -> ArgumentParser:
    """The command line: one subcommand a protocol, with the fields of its configuration."""
    parser = ArgumentParser(prog="evaluate.py", description="Score tokens on labelled images.")
    commands = parser.add_subcommands(dest="protocol")
    for name, (config_class, _, summary) in PROTOCOLS.items():
        command = ArgumentParser(
            description=f"{summary[0].upper()}{summary[1:]}; writes OUTPUT/metrics.json."
        )
        command.add_argument("--config", action="config", help="preset or saved configuration, a YAML file")
        command.add_class_arguments(config_class)
        commands.add_subcommand(name, command, help=summary)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a protocol as the arguments say; returns the exit status: 0 done, 2 bad input."""
    parser = build_parser()
    try:
        arguments = preset_first(sys.argv[1:] if arguments is None else arguments)
        chosen = parser.instantiate(parser.parse_args(arguments))
        config_class, run, _ = PROTOCOLS[chosen.protocol]
        settings = chosen[chosen.protocol]
        settings.pop("config")
        config = config_class(**vars(settings))
        device, started = choose_device(config.device), time.perf_counter()
        results = run(config, device)
        report = complete(results, chosen.protocol, config, device, time.perf_counter() - started)
        path = write_metrics(report, Path(config.output))
    except BAD_INPUT as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    print_report(report, Console())
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
