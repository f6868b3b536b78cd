"""Every command that the documentation shows is understood, and one of every kind is run in small."""

import argparse
import os
import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import jsonargparse
import pytest
from torch.distributed.run import get_args_parser

from hcl.commands import evaluate, train
from tests.docs.blocks import PAGES, ROOT, Command, commands
from tests.docs.sandbox import in_small

NOT_TRIED = {
    ".": "it enters the environment that the tests are in",
    "source": "the same",
    "cd": "it changes the folder, which no test depends on",
    "git": "it wants the network",
    "pip": "it wants the network, and installs",
    "docker": "it wants Docker",
    "apptainer": "it wants Apptainer",
    "sbatch": "it wants Slurm",
    "tensorboard": "it serves until it is stopped",
}
"""Programs that no test can start, with the reason; files that they are given must be there all the same."""

COMMANDS = [command for page in PAGES for command in commands(page)]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
SCRIPTS = {
    name: (f"{module}.py",) if (ROOT / f"{module}.py").exists() else ("-m", module.removesuffix(".__main__"))
    for name, target in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    .get("scripts", {})
    .items()
    for module in [target.partition(":")[0]]
}
"""What the installed commands stand for."""


class Parsed(BaseException):
    """The arguments were understood: raised in place of what the program would do with them."""

    def __init__(self, settings: argparse.Namespace | jsonargparse.Namespace) -> None:
        self.settings = settings


@contextmanager
def only_parsing(arguments: list[str]) -> Iterator[None]:
    """A program ends with `Parsed` as soon as its parser has accepted the arguments."""
    with pytest.MonkeyPatch.context() as patched:
        for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            patched.setattr(parser, "parse_args", _then_stop(parser.parse_args))
        patched.chdir(ROOT)
        patched.setattr(sys, "argv", arguments)
        yield


def _then_stop(parse_args: Callable) -> Callable:
    def parse(self: argparse.ArgumentParser, *args, **kwargs):
        settings = parse_args(self, *args, **kwargs)
        if self.prog.count(" ") > self.prog.startswith("python -m"):
            return settings  # of a subcommand, which its parent goes on with
        raise Parsed(
            self.instantiate(settings) if isinstance(self, jsonargparse.ArgumentParser) else settings
        )

    return parse


@cache
def understood(words: tuple[str, ...]) -> argparse.Namespace | jsonargparse.Namespace | None:
    """What the program's own parser makes of a command; None where the parser does all that it asks for.

    Raises:
        SystemExit: the parser refuses the arguments.
    """
    arguments = list(words[1:])
    start = runpy.run_path
    if arguments[0] == "-m":
        start = runpy.run_module
        arguments = arguments[1:]
    with only_parsing(arguments), pytest.raises((Parsed, SystemExit)) as caught:
        start(arguments[0], run_name="__main__")
    if isinstance(caught.value, Parsed):
        return caught.value.settings
    if caught.value.code:
        raise caught.value
    return None


def program(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command as Python sees it; torchrun's own arguments are checked here."""
    words = (words[0].removeprefix(".venv/bin/"), *words[1:])
    if words[:3] == ("python", "-m", "pytest"):
        return words[2:]
    if words[0] in SCRIPTS:
        return ("python", *SCRIPTS[words[0]], *words[1:])
    if words[0] != "torchrun":
        return words
    own = get_args_parser().parse_args(words[1:])
    return ("python", own.training_script, *own.training_script_args)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # imported by an earlier test
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_understood(command: Command):
    words = program(command.words)
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
    elif words[0] == "pytest":
        assert all((ROOT / word).exists() for word in words[1:] if word.endswith(".py") or "/" in word)
    elif words[0] == "python":
        understood(words)
    else:
        assert words[0] in NOT_TRIED, (
            f"{command}: neither is it known here, nor is there a reason not to try it"
        )
        assert all((ROOT / word).exists() for word in words[1:] if re.fullmatch(r"[\w/]+\.(sh|sbatch)", word))


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --config configs/voc_vits16.yaml --data.rot /data/VOC2012",
        "python evaluate.py foregrounds --data.kind voc --data.root x --data.split val",
        "python evaluate.py foreground --data.kind voc --data.root x --data.split val --tokens none",
    ],
)
def test_a_command_that_the_parser_refuses_would_be_found(line):
    with pytest.raises(SystemExit):
        understood(tuple(line.split()))


def kind(words: tuple[str, ...]) -> tuple[str, ...]:
    """What a command of train.py or evaluate.py is an example of: the program and its subcommands."""
    script, *arguments = words[1:]
    subcommands = []
    for word in arguments:
        if word.startswith("-"):
            break
        subcommands.append(word)
    return (script, *subcommands[: 2 if subcommands[:1] == ["baseline"] else 1])


NOT_RUN = {("evaluate.py", "explore"): "it serves until it is stopped"}
"""Subcommands whose arguments are parsed and that are not run here, with the reason."""


def representatives() -> Iterator[Command]:
    """The first command of every kind, in the order of the pages, the README's first."""
    seen = set()
    for command in sorted(COMMANDS, key=lambda command: (command.page != "README.md", command.page)):
        words = program(command.words)
        if words[:2] not in (("python", "train.py"), ("python", "evaluate.py")):
            continue
        if kind(words) not in {("evaluate.py",), *seen, *NOT_RUN}:
            seen.add(kind(words))
            yield Command(command.page, command.line, words)


REPRESENTATIVES = {kind(command.words): command for command in representatives()}


def test_every_subcommand_is_documented():
    documented = {
        kind(words) for words in map(program, (c.words for c in COMMANDS)) if "evaluate.py" in words
    }
    assert {("evaluate.py", name) for name in (*evaluate.PROTOCOLS, *evaluate.COMMANDS)} <= documented
    assert ("train.py",) in REPRESENTATIVES


@pytest.mark.parametrize("example", REPRESENTATIVES, ids=" ".join)
def test_a_command_of_each_kind_runs(example, sandbox, tmp_path, monkeypatch):
    words = REPRESENTATIVES[example].words
    arguments = in_small(list(words[2:]), example, understood(words), sandbox, tmp_path)
    monkeypatch.chdir(ROOT)
    main = {"train.py": train.main, "evaluate.py": evaluate.main}[example[0]]
    assert main(arguments) == 0
    assert os.listdir(tmp_path / "out")
