"""Any folder of images, without labels."""

from pathlib import Path

from hcl.data.samples import Dataset, Sample

SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def open_folder(root: Path) -> Dataset:
    """Every image below `root`, in the order of their relative paths; hidden files and folders are left out.

    Raises FileNotFoundError where the folder is not there or holds no image.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    relative = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = sorted(
        path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts)
    )
    if not names:
        raise FileNotFoundError(f"no image below {root} (looked for {', '.join(sorted(SUFFIXES))})")
    return Dataset(f"folder-{root.name}", [Sample(root / name, None, name) for name in names])
