"""The commands and the Python code that the README and the pages of docs/ show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"""(?:export )?([A-Z_]+)=(?:"([^"]*)"|'([^']*)'|(\S*))\s*(?:#.*)?$""")
SEPARATORS = {"&&", "||", "|", ";", "&"}


class Block(NamedTuple):
    """A fenced block: the page's name, the line it begins on, and what it holds."""

    page: str
    line: int
    text: str


class Command(NamedTuple):
    """One command of a page, its variables filled in, as the words that a shell makes of it."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {' '.join(self.words)}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in one of the languages, in order."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, text.count("\n", 0, match.start()) + 2, re.sub(rf"^{match[1]}", "", match[3], flags=re.M))
        for match in FENCE.finditer(text)
        if match[2] in languages
    ]


def commands(page: Path) -> Iterator[Command]:
    """Every command of a page; a variable holds from its assignment to the end of the page."""
    variables: dict[str, str] = {}
    for block in blocks(page, "bash", "sh", "shell", "console"):
        joined = re.sub(r"\\\n\s*", " ", block.text)
        for line in joined.splitlines():
            if assigned := ASSIGNMENT.match(line):
                variables[assigned[1]] = next((value for value in assigned.groups()[1:] if value), "")
            else:
                yield from _split(line, variables, block)


def _split(line: str, variables: dict[str, str], block: Block) -> Iterator[Command]:
    lexer = shlex.shlex(Template(line).safe_substitute(variables), posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in (*lexer, ";"):
        if word not in SEPARATORS:
            words.append(word)
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        redirected = next((place for place, word in enumerate(words) if word[0] in "<>"), None)
        words = words[:redirected]
        if words:
            yield Command(block.page, block.line, tuple(words))
        words = []
