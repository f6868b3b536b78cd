"""Split files: lists of images that belong together, one per line."""

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from hcl.data.images import shown


def read_split(
    folder: Path, names: Sequence[str], *, elsewhere: str = "the folder has no splits"
) -> list[tuple[list[str], str]]:
    """Read the first of the named lists that exists; each line gives (its fields, "name.txt:line number").

    Fields are separated by white space. A byte order mark, Windows line ends and blank lines are dropped, and
    bytes that are not UTF-8 are kept as bytes of a file name.

    Args:
        folder: folder of the lists.
        names: names of one split, without the file extension.
        elsewhere: what to say if there is no list at all.

    Raises:
        FileNotFoundError: none of the lists exists; the message names the lists that do.
        ValueError: the list has no lines, or is not text.
    """
    name = next((name for name in names if (folder / f"{name}.txt").is_file()), None)
    if name is None:
        there = sorted(path.stem for path in folder.glob("*.txt")) if folder.is_dir() else []
        raise FileNotFoundError(
            f"there is no split {folder / names[0]}.txt; "
            + (f"the folder has the splits {', '.join(there)}" if there else elsewhere)
        )
    path = folder / f"{name}.txt"
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        raise ValueError(
            f"{shown(path)} is not a text file: it contains zero bytes (if it is UTF-16, save it as UTF-8)"
        )
    # Split as bytes, so that names match those in the file system and only ASCII white space separates them.
    lines = [
        ([os.fsdecode(field) for field in line.split()], f"{name}.txt:{number}")
        for number, line in enumerate(content.splitlines(), 1)
    ]
    filled = [(fields, origin) for fields, origin in lines if fields]
    if not filled:
        raise ValueError(f"the split {shown(path)} is empty")
    return filled


def inside(root: Path, relative: str, origin: str) -> Path:
    """Return `root / relative`; a path that leaves the root (by `..`) is a ValueError that names the line.

    A leading slash means the root of the data set, as it does in the lists that circulate.
    """
    path = os.path.normpath(relative.lstrip("/"))
    if path.split(os.sep)[0] == os.pardir:
        raise ValueError(f"{origin}: {relative!r} is outside of the data set's folder {root}")
    return root / path
