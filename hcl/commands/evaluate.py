"""Score tokens on labelled images, or show them: one subcommand for each way of doing so."""

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
    """What a subcommand's name on the command line stands for.

    Its module is imported only if the subcommand is chosen, because importing all of them takes seconds.

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
        """The function that runs the subcommand."""
        return import_module(self.module).run


class Protocol(Subcommand):
    """A subcommand that scores; its function returns the results."""


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
        "cluster all tokens with k-means and assign each cluster to a class",
    ),
    "cluster": Protocol(
        "hcl.evaluation.overclustering",
        "ClassClusteringConfig",
        "cluster with one k-means cluster per class, matched one to one",
    ),
    "fully-unsupervised": Protocol(
        "hcl.evaluation.fully_unsupervised",
        "FullyUnsupervisedConfig",
        "cluster the foreground and group its clusters into communities",
    ),
    "foreground": Protocol(
        "hcl.evaluation.foreground",
        "ForegroundConfig",
        "score the foreground map derived from the backbone's attention",
    ),
    "retrieval": Protocol(
        "hcl.evaluation.retrieval",
        "RetrievalConfig",
        "label tokens by their nearest labelled neighbours",
    ),
}
WITHOUT_BASELINE = frozenset({"linear", "foreground"})
"""Protocols without a baseline: a given classifier fits only one kind of tokens, and the foreground map is
the same for all of them."""
EVALUATIONS = "runs/evaluation"
"""Default folder of the protocols' outputs; each has a folder of its name in it."""


@dataclass(frozen=True)
class Command(Subcommand):
    """A subcommand that shows something and scores nothing.

    `positional` is the name and help text of a positional setting, `words` those of a setting that takes
    several words. `kept` is what to tell the user after Ctrl-C.
    """

    positional: tuple[str, str] | None = None
    words: tuple[str, str] | None = None
    kept: str = "no incomplete files are left"


COMMANDS = {
    "segment": Command(
        "hcl.inference.segment",
        "SegmentConfig",
        "segment your own photographs into label maps and overlays",
        positional=("photographs", "an image file, or a folder of images, including its sub-folders"),
        kept="pictures made so far are kept; --resume makes the rest",
    ),
    "components": Command(
        "hcl.inference.components",
        "ComponentsConfig",
        "draw object components: tokens, with similar tokens in other images",
    ),
    "report": Command(
        "hcl.run_report.report",
        "ReportConfig",
        "write one HTML page with a run's losses, scores and pictures",
        positional=("run", "folder of a training run; every metrics.json in it is shown"),
        words=("evaluations", "more metrics.json files, or folders that contain some"),
    ),
    "explore": Command(
        "hcl.explore.command",
        "ExploreConfig",
        "serve a local web page: click a part of a photograph, see where else it occurs",
    ),
}


def build_parser(arguments: Sequence[str] | None = None) -> SettingsParser:
    """Build the command line: one subcommand per protocol or command, with the fields of its configuration.

    Args:
        arguments: what will be parsed. Subcommands that it does not begin with then get no settings.
    """
    parser = SettingsParser(
        prog=PROGRAM,
        usage=USAGE,
        version=__version__,
        description="Score tokens on labelled images, or visualise them.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, command in (PROTOCOLS | COMMANDS).items():
        settings = _settings_of(command, name) if _asked_for(arguments, name) else SettingsParser()
        parser.add_command(commands, name, settings, command.summary)
    before = SettingsParser(
        usage=USAGE,
        description="Run a protocol on the backbone's own tokens, on PM-ViT's concatenated levels, on an "
        "untrained head and, with --checkpoint, on that head. Writes OUTPUT/metrics.json.",
    )
    parser.add_command(
        commands, "baseline", before, "run a protocol on a head and on what the head starts from"
    )
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
    written = ". Writes OUTPUT/metrics.json" if isinstance(command, Protocol) else ""
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
    """Parse a command line into a protocol or command and its settings.

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
        try:  # a full disk or a closed pipe must not lose the numbers
            path = write_metrics(metrics, Path(task.config.output))
        finally:
            print_report(metrics)
        print(f"written to {path}")


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say; return the exit status: 0 done, 2 bad input, 130 interrupted."""

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
    kept = command.kept if command else "tokens computed so far are kept, unless --keep_tokens is false"
    return reported(PROGRAM, run, after_interrupt=kept)


if __name__ == "__main__":
    sys.exit(main())
