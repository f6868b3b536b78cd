"""Score tokens on labelled images, or show what they are: a subcommand for each way."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from hcl import __version__
from hcl.command_line import preset_first, program_name, reported
from hcl.distributed import World, connect
from hcl.engine.determinism import reproducible
from hcl.evaluation import baseline
from hcl.evaluation.output import require_output
from hcl.evaluation.report import complete, print_report, write_metrics
from hcl.settings_parser import SettingsParser

PROGRAM = program_name("evaluate.py", installed="hcl-evaluate")
USAGE = "%(prog)s COMMAND [--config PRESET] [--SETTING VALUE ...]"


@dataclass(frozen=True)
class Subcommand:
    """What a word on the command line stands for.

    Its module is imported once it is the one that is meant: all of them together take seconds.

    Attributes:
        module: holds the settings, and the function ``run(config, world)``.
        settings: name of the settings' dataclass.
        summary: what it does, in a line.
    """

    module: str
    settings: str
    summary: str

    @property
    def config_class(self) -> type:
        """The dataclass of the settings."""
        return getattr(import_module(self.module), self.settings)

    @property
    def run(self) -> Callable[[Any, World], Any]:
        """What it does."""
        return import_module(self.module).run


class Protocol(Subcommand):
    """A subcommand that scores; what it runs gives the results."""


PROTOCOLS = {
    "linear-probe": Protocol(
        "hcl.evaluation.linear_probe",
        "LinearProbeConfig",
        "train a 1x1 convolution on frozen tokens and score its predictions",
    ),
    "linear": Protocol(
        "hcl.evaluation.linear",
        "LinearConfig",
        "score the predictions of a given linear classifier",
    ),
    "overcluster": Protocol(
        "hcl.evaluation.overclustering",
        "OverclusteringConfig",
        "k-means of all tokens, each cluster standing for one class",
    ),
    "cluster": Protocol(
        "hcl.evaluation.overclustering",
        "ClassClusteringConfig",
        "k-means with as many clusters as classes, matched one to one",
    ),
    "fully-unsupervised": Protocol(
        "hcl.evaluation.fully_unsupervised",
        "FullyUnsupervisedConfig",
        "find the foreground's clusters and join them to communities",
    ),
    "foreground": Protocol(
        "hcl.evaluation.foreground",
        "ForegroundConfig",
        "score the foreground map of the backbone's attention",
    ),
    "retrieval": Protocol(
        "hcl.evaluation.retrieval",
        "RetrievalConfig",
        "label tokens by their nearest neighbours among labelled ones",
    ),
}
WITHOUT_BASELINE = frozenset({"linear", "foreground"})
"""A given classifier fits one kind of tokens, and the foreground map is the same for all."""
EVALUATIONS = "runs/evaluation"
"""Where each protocol has its output by default, in a folder of its name."""


@dataclass(frozen=True)
class Command(Subcommand):
    """A subcommand that shows something and scores nothing.

    A positional setting, and one that takes several words, have a name and a help. `kept` is what to know
    after Ctrl-C.
    """

    positional: tuple[str, str] | None = None
    words: tuple[str, str] | None = None
    kept: str = "nothing is left half done"


COMMANDS = {
    "segment": Command(
        "hcl.inference.segment",
        "SegmentConfig",
        "segment your own photographs: label maps and overlays",
        positional=("photographs", "an image file, or a folder whose images are taken, below it too"),
        kept="pictures made so far are kept, and --resume makes the others",
    ),
    "components": Command(
        "hcl.inference.components",
        "ComponentsConfig",
        "draw object components: a token, and the like tokens of other images",
    ),
    "report": Command(
        "hcl.run_report.report",
        "ReportConfig",
        "show a run, its scores and what it sees as one page of HTML",
        positional=("run", "folder of a training run; every metrics.json in it is shown"),
        words=("evaluations", "more metrics.json, or folders that hold some"),
    ),
    "explore": Command(
        "hcl.explore.command",
        "ExploreConfig",
        "click a part of a photograph and see where else it is, on a page of this computer",
    ),
}


def build_parser(arguments: Sequence[str] | None = None) -> SettingsParser:
    """The command line: one subcommand a protocol or command, with the fields of its configuration.

    Args:
        arguments: what will be parsed. Subcommands that it does not begin with are then without settings.
    """
    parser = SettingsParser(
        prog=PROGRAM,
        usage=USAGE,
        version=__version__,
        description="Score tokens on labelled images, and show what they are.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, command in (PROTOCOLS | COMMANDS).items():
        settings = _settings_of(command, name) if _asked_for(arguments, name) else SettingsParser()
        parser.add_command(commands, name, settings, command.summary)
    before = SettingsParser(
        usage=USAGE,
        description="Run a protocol on the backbone's own tokens, on PM-ViT's concatenated levels, on an "
        "untrained head and, with --checkpoint, on that head; writes OUTPUT/metrics.json.",
    )
    parser.add_command(commands, "baseline", before, "a protocol, on what the head starts from too")
    choices = before.add_subcommands(dest="command")
    for name, protocol in PROTOCOLS.items():
        if name not in WITHOUT_BASELINE:
            asked_for = _asked_for(arguments, "baseline", name)
            settings = _settings_of(protocol, f"baseline-{name}") if asked_for else SettingsParser()
            before.add_command(choices, name, settings, protocol.summary)
    return parser


def _asked_for(arguments: Sequence[str] | None, *names: str) -> bool:
    if arguments is None or any(word.startswith("--print_completion") for word in arguments):
        return True
    return tuple(arguments[: len(names)]) == names


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
    arguments = preset_first(arguments)
    parser = build_parser(arguments)
    parsed = parser.instantiate(parser.parse_args(arguments))
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
    """Run a protocol on all ranks; the main one writes the report and prints it.

    Raises:
        ValueError, OSError: as `hcl.evaluation.output.require_output`, before anything else.
    """
    started = time.perf_counter()
    if world.is_main:
        require_output(task.name, task.config)
    results = task.run(task.config, world)
    metrics = complete(results, task.name, task.config, world, time.perf_counter() - started)
    if world.is_main:
        try:  # neither a full disk nor a closed pipe may cost the numbers
            path = write_metrics(metrics, Path(task.config.output))
        finally:
            print_report(metrics)
        print(f"written to {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say; returns the exit status: 0 done, 2 bad input, 130 interrupted."""

    arguments = sys.argv[1:] if arguments is None else arguments

    def run() -> int:
        task = parse(arguments)
        if task.name in COMMANDS:
            with connect(task.config.device) as world:
                task.run(task.config, world)
        else:
            with reproducible(task.config.deterministic), connect(task.config.device) as world:
                score(task, world)
        return 0

    command = COMMANDS.get(arguments[0]) if arguments else None
    kept = command.kept if command else "tokens computed so far are kept, unless --keep_tokens false"
    return reported(PROGRAM, run, after_interrupt=kept)


if __name__ == "__main__":
    sys.exit(main())
