"""The configuration reference: every setting of both programs, from their dataclasses and docstrings."""

import inspect
import types
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse

from evaluate import PROTOCOLS
from hcl.engine.config import TrainConfig
from hcl.evaluation.protocol import ProtocolConfig

INTRODUCTION = """\
# Configuration

Every setting of `train.py` and of the protocols of `evaluate.py`, made from the program's configuration
classes while this page is built. A setting is given on the command line (`--clustering.k auto`) or in a YAML
file (`--config FILE`, of which `configs/` holds examples); where both speak, the command line counts.
`--print_config` prints all of them, and what a run was told is in its checkpoint and in `metrics.json`. Lists
are written `'[5, 20]'`; `null` is no value; for a switch the name alone means `true`. A setting without a
default must be given.
"""


def configuration_page() -> str:
    """The page, in Markdown."""
    parts = [INTRODUCTION, "## train.py\n", table(TrainConfig)]
    parts += nested_tables("train.py", TrainConfig)
    parts += ["## evaluate.py, all protocols\n", table(ProtocolConfig)]
    parts += nested_tables("evaluate.py", ProtocolConfig)
    for name, protocol in PROTOCOLS.items():
        parts += [f"## evaluate.py {name}\n", f"{protocol.summary[0].upper()}{protocol.summary[1:]}.\n"]
        own = own_settings(protocol.config_class)
        parts.append(table(protocol.config_class, own) if own else "The settings of all protocols.\n")
        parts += nested_tables(f"evaluate.py {name}", protocol.config_class, own)
    return "\n".join(parts)


def own_settings(config_class: type) -> list[Field]:
    """The fields that a protocol has beside the common ones, or with another default."""
    common = {field.name: default_of(field) for field in fields(ProtocolConfig)}
    return [
        field
        for field in fields(config_class)
        if field.name not in common or default_of(field) != common[field.name]
    ]


def nested_tables(command: str, config_class: type, chosen: Iterable[Field] | None = None) -> list[str]:
    """A heading and a table for every field that is a dataclass itself."""
    hints = get_type_hints(config_class)
    parts = []
    for field in fields(config_class) if chosen is None else chosen:
        inner = hints[field.name]
        if is_dataclass(inner):
            parts += [f"### {command}: {field.name}\n", table(inner, prefix=f"{field.name}.")]
    return parts


def table(config_class: type, chosen: Iterable[Field] | None = None, *, prefix: str = "") -> str:
    """A row for every field: name, type, default, meaning; a dataclass among them has a table of its own."""
    hints, meanings = get_type_hints(config_class), meanings_of(config_class)
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for field in fields(config_class) if chosen is None else chosen:
        if is_dataclass(hints[field.name]):
            name, kind, default = f"--{prefix}{field.name}.*", "settings", ""
        else:
            name = f"--{prefix}{field.name}"
            kind, default = type_name(hints[field.name]), shown(default_of(field))
        cells = (f"`{name}`", kind, default, meanings.get(field.name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def meanings_of(config_class: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each field; the class itself has the last word."""
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        for entry in parse(inspect.getdoc(base) or "").params if is_dataclass(base) else ():
            found[entry.arg_name] = " ".join((entry.description or "").split())
    return found


def default_of(field: Field) -> Any:
    """The default value of a field, `MISSING` where there is none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def type_name(hint: Any) -> str:
    """A type as a user writes its values."""
    origin = get_origin(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in get_args(hint))
    if origin in (list, tuple):
        return f"{origin.__name__} of {type_name(get_args(hint)[0])}"
    return {type(None): "null", bool: "switch"}.get(hint, getattr(hint, "__name__", str(hint)))


def shown(default: Any) -> str:
    """A default as it is written in a YAML file; nothing for a setting that must be given."""
    if default is MISSING:
        return ""
    if default is None or isinstance(default, bool):
        return f"`{str(default).lower() if default is not None else 'null'}`"
    return f"`{list(default)}`" if isinstance(default, tuple) else f"`{default}`" if default != "" else '`""`'
