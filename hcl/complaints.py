"""A parser's error messages, reworded as sentences that say what to do."""

import argparse
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
EXAMPLES = {int: (2, 5), float: (0.5, 0.7), bool: ("true", "false"), str: ("a", "b")}


def sentence(message: str, parser: argparse.ArgumentParser) -> str:
    """Reword a parser's message in plain language; an unknown message keeps its wording.

    Args:
        message: from jsonargparse or argparse.
        parser: parser of the command, or of the subcommand whose argument is at fault.
    """
    for pattern, put in PATTERNS:
        if found := re.search(pattern, message, re.DOTALL):
            return put(parser, *found.groups())
    return " ".join(message.split())


def addressed(message: str, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return the parser that a message is about; jsonargparse reports missing settings to the main parser."""
    found = re.search(MISSING, message)
    for name in found[1].split(", ")[0].split(".") if found else ():
        parser = _parsers(parser).get(name, parser)
    return parser


def without_union(message: str) -> str:
    """Return a settings class's own message, without what jsonargparse adds if the class is optional."""
    found = re.search(
        r"^Does not validate against any of the Union.*?\n  - (.*?)\n  - Expected", message, re.DOTALL
    )
    return found[1] if found else message


def _missing_in_group(parser: argparse.ArgumentParser, group: str, names: str) -> str:
    return _missing(parser, ", ".join(f"{group}.{name}" for name in names.split(", ")))


def _wrong_in_group(parser: argparse.ArgumentParser, group: str, name: str, value: str) -> str:
    action = next(action for action in parser._actions if action.dest == group)
    (config_class, *_) = get_args(getattr(action, "_typehint", None))
    return f"--{group}.{name} is {value}; it must be {describe(get_type_hints(config_class)[name])}"


def _wrong_value(parser: argparse.ArgumentParser, key: str, value: str) -> str:
    action = next((action for action in parser._actions if action.dest == key), None)
    expected = describe(getattr(action, "_typehint", None))
    return f"--{key} is {value.strip()}; it must be {expected or 'another kind of value'}"


def describe(kind: Any) -> str:
    """Describe a type in words; empty if there are none for it."""
    if get_origin(kind) is Literal:
        return _either(map(str, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(describe(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) in (list, tuple):
        (member, *_) = get_args(kind)
        choices = get_args(member) if get_origin(member) is Literal else ()
        of = f" of {', '.join(choices)}" if choices else ""
        example = choices[:2] or EXAMPLES[member]
        return f"a list{of} in brackets, such as [{','.join(map(str, example))}]"
    return WORDS.get(kind, "")


def _missing(parser: argparse.ArgumentParser, names: str) -> str:
    settings = [_as_in_usage(parser, name) for name in names.split(", ")]
    return f"{_listed(settings)} {'is' if len(settings) == 1 else 'are'} missing"


def _as_in_usage(parser: argparse.ArgumentParser, name: str) -> str:
    """Return a setting as its command's usage shows it, without the subcommands that jsonargparse adds."""
    command, _, rest = name.partition(".")
    if command in _parsers(parser):
        return _as_in_usage(_parsers(parser)[command], rest)
    positional = any(action.dest == name and not action.option_strings for action in parser._actions)
    return name.upper() if positional else f"--{name}"


def _unknown(parser: argparse.ArgumentParser, given: str) -> str:
    name = given.split()[0].partition("=")[0]
    if not name.startswith("--"):
        return f"unexpected argument {name!r}: give settings as --NAME VALUE"
    return f"there is no setting {name}{_near(name, _settings(parser))}"


def _unknown_in_file(parser: argparse.ArgumentParser, name: str) -> str:
    near = _near(f"--{name}", _settings(parser)).replace("--", "")
    return f"the configuration sets {name}, which is not a setting of this command{near}"


def _no_settings(parser: argparse.ArgumentParser, content: str) -> str:
    return f"the configuration must map settings to values, but it is {content.strip()[:40]!r}"


def _unreadable(parser: argparse.ArgumentParser, reason: str) -> str:
    return f"the configuration is not valid YAML: {' '.join(reason.split())}"


def _no_command(parser: argparse.ArgumentParser, path: str) -> str:
    for name in path.split(".")[:-1]:
        parser = _parsers(parser)[name]
    return f"no command is given; choose one of {', '.join(_parsers(parser))}"


def _unknown_command(parser: argparse.ArgumentParser, given: str, known: str) -> str:
    names = re.findall(r"[\w-]+", known)
    return f"there is no command {given!r}{_near(given, names) or '; choose one of ' + ', '.join(names)}"


MISSING = r"^the following arguments are required: (.+)"
GROUP = r'Parser key "([^"]+)":\s+Does not validate against any of the Union.*?'
"""Matches errors about an optional dataclass of which at least one setting was given."""
PATTERNS: list[tuple[str, Callable[..., str]]] = [
    (GROUP + r"following arguments are required: ([^\n]+)", _missing_in_group),
    (GROUP + r'Parser key "([^"]+)":[^\n]*\n\s+Expected [^\n]*Got value: ([^\n]*)', _wrong_in_group),
    (r'Parser key "([^"]+)":.*?(?:Got value|Given value): (.*)', _wrong_value),
    (MISSING, _missing),
    (r"^unrecognized arguments: (.+)", _unknown),
    (r"Option '([^']+)' is not accepted", _unknown_in_file),
    (r"^Unexpected config: (.*)", _no_settings),
    (r"^Problems parsing config: (.*)", _unreadable),
    (r'^expected "([\w.]*command)" to be one of', _no_command),
    (r"argument command: invalid choice: '([^']*)' \(choose from (.*)\)", _unknown_command),
]


def _settings(parser: argparse.ArgumentParser) -> list[str]:
    own = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    return own + [name for sub in _parsers(parser).values() for name in _settings(sub)]


def _parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands' parsers by name."""
    action = getattr(parser, "_subcommands_action", None)
    return action._name_parser_map if action else {}


def _near(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` if a known name ends or begins with the given one, or resembles it."""
    bare = name.removeprefix("--").replace("-", "_")
    known = list(dict.fromkeys(known))
    ends = [other for other in known if other.endswith(f".{bare}")]
    begins = [other for other in known if other.startswith(name)]
    near = (
        ends
        or begins[: len(begins) == 1]
        or get_close_matches(name.replace("-", "_").replace("__", "--", 1), known, 1, 0.7)
        or begins
    )
    return f"; did you mean {near[0]}?" if near else ""


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
