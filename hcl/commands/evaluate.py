"""Score tokens on labelled images, or show what they are: a subcommand for each way."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from hcl import __version__
from hcl.command_line import preset_first, program_name, reported
from hcl.distributed import World, connect
from hcl.evaluation import (
    baseline,
    foreground,
    fully_unsupervised,
    linear,
    linear_probe,
    overclustering,
    retrieval,
)
from hcl.evaluation.protocol import ProtocolConfig
from hcl.evaluation.report import complete, print_report, write_metrics
from hcl.explore import command as explore
from hcl.inference import components, segment
from hcl.run_report import report
from hcl.settings_parser import SettingsParser

PROGRAM = program_name("evaluate.py", installed="hcl-evaluate")
USAGE = "%(prog)s COMMAND [--config PRESET] [--SETTING VALUE ...]"


class Protocol(NamedTuple):
    """A subcommand: its settings, what it runs, and what it does in a line."""

    config_class: type[ProtocolConfig]
    run: Callable[[Any, World], dict[str, Any]]
    summary: str


PROTOCOLS = {
    "linear-probe": Protocol(
        linear_probe.LinearProbeConfig,
        linear_probe.run,
        "train a 1x1 convolution on frozen tokens and score its predictions",
    ),
    "linear": Protocol(
        linear.LinearConfig,
        linear.run,
        "score the predictions of a given linear classifier",
    ),
    "overcluster": Protocol(
        overclustering.OverclusteringConfig,
        overclustering.run,
        "k-means of all tokens, each cluster standing for one class",
    ),
    "cluster": Protocol(
        overclustering.ClassClusteringConfig,
        overclustering.run,
        "k-means with as many clusters as classes, matched one to one",
    ),
    "fully-unsupervised": Protocol(
        fully_unsupervised.FullyUnsupervisedConfig,
        fully_unsupervised.run,
        "find the foreground's clusters and join them to communities",
    ),
    "foreground": Protocol(
        foreground.ForegroundConfig,
        foreground.run,
        "score the foreground map of the backbone's attention",
    ),
    "retrieval": Protocol(
        retrieval.RetrievalConfig,
        retrieval.run,
        "label tokens by their nearest neighbours among labelled ones",
    ),
}
WITHOUT_BASELINE = frozenset({"linear", "foreground"})
"""A given classifier fits one kind of tokens, and the foreground map is the same for all."""
EVALUATIONS = "runs/evaluation"
"""Where each protocol has its output by default, in a folder of its name."""


class Command(NamedTuple):
    """A subcommand that shows something and scores nothing.

    A positional setting, and one that takes several words, have a name and a help.
    """

    config_class: type
    run: Callable[[Any, World], None]
    summary: str
    positional: tuple[str, str] | None = None
    words: tuple[str, str] | None = None


COMMANDS = {
    "segment": Command(
        segment.SegmentConfig,
        segment.run,
        "segment your own photographs: label maps and overlays",
        positional=("photographs", "an image file, or a folder whose images are taken, below it too"),
    ),
    "components": Command(
        components.ComponentsConfig,
        components.run,
        "draw object components: a token, and the like tokens of other images",
    ),
    "report": Command(
        report.ReportConfig,
        report.run,
        "show a run, its scores and what it sees as one page of HTML",
        positional=("run", "folder of a training run; every metrics.json in it is shown"),
        words=("evaluations", "more metrics.json, or folders that hold some"),
    ),
    "explore": Command(
        explore.ExploreConfig,
        explore.run,
        "click a part of a photograph and see where else it is, on a page of this computer",
    ),
}


def build_parser() -> SettingsParser:
    """The command line: one subcommand a protocol or command, with the fields of its configuration."""
    parser = SettingsParser(
        prog=PROGRAM,
        usage=USAGE,
        version=__version__,
        description="Score tokens on labelled images, and show what they are.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, command in (PROTOCOLS | COMMANDS).items():
        parser.add_command(commands, name, _settings_of(command, name), command.summary)
    before = SettingsParser(
        usage=USAGE,
        description="Run a protocol on the backbone's own tokens, on PM-ViT's concatenated levels, on an "
        "untrained head and, with --checkpoint, on that head; writes OUTPUT/metrics.json.",
    )
    parser.add_command(commands, "baseline", before, "a protocol, on what the head starts from too")
    choices = before.add_subcommands(dest="command")
    for name, protocol in PROTOCOLS.items():
        if name not in WITHOUT_BASELINE:
            settings = _settings_of(protocol, f"baseline-{name}")
            before.add_command(choices, name, settings, protocol.summary)
    return parser


def _settings_of(command: Protocol | Command, folder: str) -> SettingsParser:
    summary = command.summary
    written = "; writes OUTPUT/metrics.json" if isinstance(command, Protocol) else ""
    parser = SettingsParser(description=f"{summary[0].upper()}{summary[1:]}{written}.")
    parser.add_argument("--config", action="config", help="name of a preset, or a YAML file")
    if isinstance(command, Command):
        parser.add_settings(command.config_class, command.positional, command.words)
    else:
        parser.add_settings(command.config_class)
        parser.set_defaults(output=f"{EVALUATIONS}/{folder}")
    return parser


class Task(NamedTuple):
    """What a command line asks for."""

    name: str
    run: Callable[[Any, World], Any]
    config: Any


def parse(arguments: list[str]) -> Task:
    """The protocol or command, and the settings, of a command line.

    Raises:
        ValueError: a setting is out of range.
        SystemExit: an option is unknown, or help was asked for.
    """
    parser = build_parser()
    parsed = parser.instantiate(parser.parse_args(preset_first(arguments)))
    names = [parsed.command]
    settings = parsed[parsed.command]
    if names[0] == "baseline":
        names.append(settings.command)
        settings = settings[settings.command]
    settings.pop("config")
    if command := COMMANDS.get(names[0]):
        return Task(names[0], command.run, command.config_class(**vars(settings)))
    protocol = PROTOCOLS[names[-1]]
    run = partial(baseline.run, protocol.run) if names[0] == "baseline" else protocol.run
    return Task(" ".join(names), run, protocol.config_class(**vars(settings)))


def score(task: Task, world: World) -> None:
    """Run a protocol on all ranks; the main one writes the report and prints it."""
    started = time.perf_counter()
    results = task.run(task.config, world)
    metrics = complete(results, task.name, task.config, world, time.perf_counter() - started)
    if world.is_main:
        path = write_metrics(metrics, Path(task.config.output))
        print_report(metrics, Console())
        print(f"written to {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say; returns the exit status: 0 done, 2 bad input, 130 interrupted."""

    arguments = sys.argv[1:] if arguments is None else arguments

    def run() -> int:
        task = parse(arguments)
        with connect(task.config.device) as world:
            if task.name in COMMANDS:
                task.run(task.config, world)
            else:
                score(task, world)
        return 0

    scores = not COMMANDS.keys() & set(arguments[:1])
    kept = (
        {"after_interrupt": "tokens computed so far are kept, unless --keep_tokens false"} if scores else {}
    )
    return reported(PROGRAM, run, **kept)


if __name__ == "__main__":
    sys.exit(main())
