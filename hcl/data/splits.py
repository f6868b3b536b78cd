"""Split files: which images belong together, one a line."""

import os
from collections.abc import Sequence
from pathlib import Path


def read_split(folder: Path, names: Sequence[str]) -> list[tuple[list[str], str]]:
    """The lines of the first of the named lists that exists, each as (its fields, "name.txt:line number").

    Raises FileNotFoundError naming the file and the lists that do exist, ValueError for a list without a
    line.
    """
    name = next((name for name in names if (folder / f"{name}.txt").is_file()), None)
    if name is None:
        there = sorted(path.stem for path in folder.glob("*.txt")) if folder.is_dir() else []
        raise FileNotFoundError(
            f"no split {folder / names[0]}.txt; "
            + (f"splits there: {', '.join(there)}" if there else "no split is there")
        )
    text = (folder / f"{name}.txt").read_text(encoding="utf-8")
    lines = [(line.split(), f"{name}.txt:{number}") for number, line in enumerate(text.splitlines(), 1)]
    filled = [(fields, origin) for fields, origin in lines if fields]
    if not filled:
        raise ValueError(f"the split {folder / name}.txt is empty")
    return filled


def inside(root: Path, relative: str, origin: str) -> Path:
    """`root / relative`; a path that leaves the root (by `..`) is refused with a ValueError naming the line.

    A leading slash means the root of the data set, as it does in the lists that circulate.
    """
    path = os.path.normpath(relative.lstrip("/"))
    if path.split(os.sep)[0] == os.pardir:
        raise ValueError(f"{origin}: {relative!r} leaves the data set's folder {root}")
    return root / path
