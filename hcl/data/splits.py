"""Split files: which images belong together, one a line."""

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from hcl.data.images import shown


def read_split(
    folder: Path, names: Sequence[str], *, elsewhere: str = "no split is there"
) -> list[tuple[list[str], str]]:
    """The lines of the first of the named lists that exists, each as (its fields, "name.txt:line number").

    Fields are divided by white space; a byte order mark, Windows' line ends and blank lines are no part of
    them, and bytes that are not UTF-8 are those of the file's name.

    Args:
        folder: of the lists.
        names: of the same split, without their ending.
        elsewhere: what to say where there is no list at all.

    Raises:
        FileNotFoundError: none exists; the lists that do are named.
        ValueError: the list has no line, or is no text.
    """
    name = next((name for name in names if (folder / f"{name}.txt").is_file()), None)
    if name is None:
        there = sorted(path.stem for path in folder.glob("*.txt")) if folder.is_dir() else []
        raise FileNotFoundError(
            f"no split {folder / names[0]}.txt; "
            + (f"splits there: {', '.join(there)}" if there else elsewhere)
        )
    path = folder / f"{name}.txt"
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        raise ValueError(f"{shown(path)} is no list: it holds zero bytes (is it UTF-16? save it as UTF-8)")
    # As bytes, so that a name is what the file system has, and only ASCII white space divides.
    lines = [
        ([os.fsdecode(field) for field in line.split()], f"{name}.txt:{number}")
        for number, line in enumerate(content.splitlines(), 1)
    ]
    filled = [(fields, origin) for fields, origin in lines if fields]
    if not filled:
        raise ValueError(f"the split {shown(path)} is empty")
    return filled


def inside(root: Path, relative: str, origin: str) -> Path:
    """`root / relative`; a path that leaves the root (by `..`) is refused with a ValueError naming the line.

    A leading slash means the root of the data set, as it does in the lists that circulate.
    """
    path = os.path.normpath(relative.lstrip("/"))
    if path.split(os.sep)[0] == os.pardir:
        raise ValueError(f"{origin}: {relative!r} leaves the data set's folder {root}")
    return root / path
