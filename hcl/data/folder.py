"""Any folder of images, without labels."""

import os
from collections.abc import Iterator
from pathlib import Path

from hcl.data.samples import Dataset, Sample

SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def open_folder(root: Path) -> Dataset:
    """Every image below `root`, in the order of their relative paths; hidden files and folders are left out.

    Links to files are followed, links to folders are not (they may lead round in circles). Raises
    FileNotFoundError where the folder is not there or holds no image, OSError for a folder that cannot be
    listed.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    names = sorted(path.relative_to(root).as_posix() for path in _images_below(root))
    if not names:
        raise FileNotFoundError(f"no image below {root} (looked for {', '.join(sorted(SUFFIXES))})")
    return Dataset(f"folder-{root.name}", [Sample(root / name, None, name) for name in names])


def _images_below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _raise(error: OSError) -> None:
    raise error
