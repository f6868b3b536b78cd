"""The output folder of a segmentation: where each photograph's pictures are, and what they mean."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hcl.data.samples import Dataset
from hcl.figures.colours import as_hex
from hcl.figures.segments import legend
from hcl.files import written_whole
from hcl.inference.labelling import Labels
from hcl.nested_settings import changed_settings

RECORD = "segments.json"
KINDS = ("labels", "overlays")
"""Folders of the pictures."""

FREE = frozenset(
    {"photographs", "output", "batch_size", "threads", "crf_settings.workers", "device", "on_error"}
    | {"resume", "overwrite"}
    | {"checkpoint", "classifier", "backbone.name", "backbone.weights", "backbone.patch_sizes"}
)
"""Settings that may differ when pictures are added; the content of model files is compared by digests."""


class Outputs(NamedTuple):
    """The pictures of one photograph."""

    labels: Path
    overlay: Path

    def exist(self) -> bool:
        """Return whether both exist already."""
        return self.labels.is_file() and self.overlay.is_file()


def outputs_of(dataset: Dataset, folder: Path) -> list[Outputs]:
    """Return where each photograph's pictures go: its name, with its extension if two names would clash."""
    names = [Path(sample.origin) for sample in dataset.samples]
    stems = [name.with_suffix("") for name in names]
    # Repeated, since a name with its extension may clash again: a.jpg and a.png next to a.jpg.png.
    while len(set(stems)) < len(stems):
        shared = Counter(stems)
        stems = [name if shared[stem] > 1 else stem for name, stem in zip(names, stems, strict=True)]
    return [Outputs(folder / KINDS[0] / f"{stem}.png", folder / KINDS[1] / f"{stem}.jpg") for stem in stems]


def describe(folder: Path, labels: Labels, settings: dict[str, Any], pictures: Iterable[Outputs]) -> None:
    """Write segments.json, and the legend as a picture.

    Args:
        folder: output folder of the segmentation.
        labels: labels that pixels may have.
        settings: settings of the run.
        pictures: pictures that the run will make; those of earlier runs stay on the list.
    """
    entries = [
        {"id": number, "name": name, "colour": as_hex(colour)}
        for number, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True))
    ]
    listed = {str(path.relative_to(folder)) for outputs in pictures for path in outputs}
    record = {
        "labels": entries,
        "settings": settings,
        "pictures": sorted(listed | set(_record(folder).get("pictures", []))),
    }
    with written_whole(folder / RECORD) as file:
        file.write(json.dumps(record, indent=2).encode())
    with written_whole(folder / "legend.png") as file:
        legend(labels.names, labels.colours).save(file, format="PNG")


def _record(folder: Path) -> dict[str, Any]:
    """Read the record that `describe` wrote; empty if there is none or the file is something else."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def refuse_other_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Check that the pictures in a folder were made with the same settings.

    Raises:
        ValueError: they were made with other settings or by another model, or it is not recorded how.
    """
    refuse_foreign_pictures(folder)
    path = folder / RECORD
    if not path.exists():
        return
    try:
        # Through JSON, so that tuples and lists compare equal.
        changed = changed_settings(_record(folder)["settings"], json.loads(json.dumps(settings)), FREE)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not record how its pictures were made: choose another --output"
        ) from error
    if changed:
        raise ValueError(
            f"the pictures in {folder} were made with other settings ({'; '.join(changed)}): choose another "
            "--output, or replace them with --overwrite"
        )


def refuse_foreign_pictures(folder: Path) -> None:
    """Check that a folder holds no files of others where pictures would go.

    Raises:
        ValueError: there are files, and no record that they were made here.
    """
    if (folder / RECORD).exists():
        return
    for name in KINDS:
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            raise ValueError(
                f"{folder / name} holds files, but no {RECORD} records that this program made them: choose "
                "another --output"
            )


def remove_pictures(folder: Path) -> None:
    """Remove the pictures that a folder's record lists, and the record."""
    for name in _record(folder).get("pictures", []):
        picture = folder / name
        if Path(name).parts[0] in KINDS and ".." not in Path(name).parts and picture.is_file():
            picture.unlink()
    (folder / RECORD).unlink(missing_ok=True)
