"""The configuration reference: every setting of the commands, from their dataclasses and docstrings."""

import inspect
import types
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse
from markdown.extensions.toc import slugify

from hcl.commands.evaluate import COMMANDS, PROTOCOLS, Protocol
from hcl.engine.config import TrainConfig
from hcl.evaluation.protocol import ProtocolConfig
from hcl.export.config import ExportConfig

INTRODUCTION = """\
# Configuration

All settings of `train.py`, `evaluate.py` and `hcl-export`; this page is generated from the program's
configuration classes. Give a setting on the command line (`--clustering.k auto`) or, except for `hcl-export`,
in a YAML file (`--config FILE`; `configs/` holds examples); the command line takes precedence.
`--print_config` prints all settings, and those of a run are recorded in its checkpoint and in `metrics.json`.
Lists are written `'[5, 20]'`; `null` means no value; the name of a switch alone means `true`. A setting
without a default is required; one in capitals is a positional argument, given without a name. In addition to
its settings, `train.py` takes `--resume`, which continues the run in `--output`. "HCL, section 4" is section
4 of [the method](method.md).
"""


def configuration_page() -> str:
    """Return the page in Markdown."""
    page = _Page()
    page.add("train.py", TrainConfig)
    page.add("evaluate.py, all protocols", ProtocolConfig)
    for name, protocol in PROTOCOLS.items():
        page.add(f"evaluate.py {name}", protocol.config_class, protocol.summary, own_settings(protocol))
    for name, command in COMMANDS.items():
        positional = command.positional[0] if command.positional else None
        page.add(f"evaluate.py {name}", command.config_class, command.summary, positional=positional)
    page.add("hcl-export", ExportConfig, "write a trained model for other programs")
    return "\n".join(page.parts)


def own_settings(protocol: Protocol) -> list[Field]:
    """Return the fields that a protocol adds to the common ones or gives another default."""
    common = {field.name: default_of(field) for field in fields(ProtocolConfig)}
    return [
        field
        for field in fields(protocol.config_class)
        if field.name not in common or default_of(field) != common[field.name]
    ]


class _Page:
    """Sections with a table each. Nested settings are shown once and linked from all other places."""

    def __init__(self) -> None:
        self.parts = [INTRODUCTION]
        self._shown: dict[tuple[str, type], str] = {}

    def add(
        self,
        title: str,
        config_class: type,
        summary: str = "",
        chosen: list[Field] | None = None,
        positional: str | None = None,
    ) -> None:
        """Add a command: its table, then one for every field that is a dataclass and new here."""
        self.parts.append(f"## {title}\n")
        if summary:
            self.parts.append(f"{summary[0].upper()}{summary[1:]}.\n")
        chosen = list(fields(config_class)) if chosen is None else chosen
        hints = get_type_hints(config_class)
        nested = {field.name: inner for field in chosen if (inner := settings_in(hints[field.name]))}
        new = {name: inner for name, inner in nested.items() if (name, inner) not in self._shown}
        for name, inner in new.items():
            self._shown[name, inner] = slugify(f"{title}: {name}", "-")
        links = {name: self._shown[name, inner] for name, inner in nested.items()}
        written = {positional: positional.upper()} if positional else {}
        self.parts.append(
            table(config_class, chosen, links, written)
            if chosen
            else "It has the settings of all protocols.\n"
        )
        for name, inner in new.items():
            options = {field.name: f"--{name}.{field.name}" for field in fields(inner)}
            self.parts += [f"### {title}: {name}\n", table(inner, list(fields(inner)), {}, options)]


def table(config_class: type, chosen: list[Field], links: dict[str, str], written: dict[str, str]) -> str:
    """Format a row for every field: name, type, default, meaning; a field that is a dataclass is a link.

    A field is shown as the option of its name, unless `written` holds another form for it.
    """
    hints, meanings = get_type_hints(config_class), meanings_of(config_class)
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for field in chosen:
        if field.name in links:
            name, kind = f"--{field.name}.*", f"[settings](#{links[field.name]})"
            default = ""
        else:
            name, kind = written.get(field.name, f"--{field.name}"), type_name(hints[field.name])
            default = shown(default_of(field))
        cells = (f"`{name}`", kind, default, meanings.get(field.name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def settings_in(hint: Any) -> type | None:
    """Return the dataclass that a type is or may be, if any."""
    return next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None)


def meanings_of(config_class: type) -> dict[str, str]:
    """Collect each field's description from the docstrings of a class and its bases; the class wins."""
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        for entry in parse(inspect.getdoc(base) or "").params if is_dataclass(base) else ():
            found[entry.arg_name] = " ".join((entry.description or "").split())
    return found


def default_of(field: Field) -> Any:
    """Return the default value of a field, `MISSING` if there is none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def type_name(hint: Any) -> str:
    """Describe a type by the values that a user writes."""
    origin = get_origin(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in get_args(hint))
    if origin in (list, tuple):
        return f"{origin.__name__} of {type_name(get_args(hint)[0])}"
    return {type(None): "null", bool: "switch"}.get(hint, getattr(hint, "__name__", str(hint)))


def shown(default: Any) -> str:
    """Format a default as in a YAML file; empty for a required setting."""
    if default is MISSING:
        return ""
    if default is None or isinstance(default, bool):
        return f"`{str(default).lower() if default is not None else 'null'}`"
    if isinstance(default, list | tuple):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`" if default != "" else '`""`'
