"""The folder that a segmentation leaves: where each photograph's pictures are, and what they mean."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from hcl.data.samples import Dataset
from hcl.figures.colours import as_hex
from hcl.figures.segments import legend
from hcl.files import written_whole
from hcl.inference.labelling import Labels
from hcl.nested_settings import changed_settings

RECORD = "segments.json"

FREE = frozenset(
    {"photographs", "output", "batch_size", "threads", "crf_settings.workers", "device", "on_error"}
    | {"resume", "overwrite"}
    | {"checkpoint", "classifier", "backbone.name", "backbone.weights", "backbone.patch_sizes"}
)
"""Settings that may be otherwise where pictures are added: what files hold is compared by digests."""


class Outputs(NamedTuple):
    """The pictures of one photograph."""

    labels: Path
    overlay: Path

    def exist(self) -> bool:
        """Whether they are there already."""
        return self.labels.is_file() and self.overlay.is_file()


def outputs_of(dataset: Dataset, folder: Path) -> list[Outputs]:
    """Where each photograph's pictures go: under its name, with its ending where two would share one."""
    names = [Path(sample.origin) for sample in dataset.samples]
    stems = [name.with_suffix("") for name in names]
    # Once more for a name with its ending that is another's without: a.jpg of a.jpg and a.png, and a.jpg.png.
    while len(set(stems)) < len(stems):
        shared = Counter(stems)
        stems = [name if shared[stem] > 1 else stem for name, stem in zip(names, stems, strict=True)]
    return [Outputs(folder / "labels" / f"{stem}.png", folder / "overlays" / f"{stem}.jpg") for stem in stems]


def describe(folder: Path, labels: Labels, settings: dict[str, Any]) -> None:
    """Write segments.json, and the legend as a picture."""
    entries = [
        {"id": number, "name": name, "colour": as_hex(colour)}
        for number, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True))
    ]
    with written_whole(folder / RECORD) as file:
        file.write(json.dumps({"labels": entries, "settings": settings}, indent=2).encode())
    with written_whole(folder / "legend.png") as file:
        legend(labels.names, labels.colours).save(file, format="PNG")


def refuse_other_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raise a ValueError where the pictures in a folder were made with other settings, or by another head."""
    path = folder / RECORD
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        # Through JSON, so that tuples and lists are the same.
        changed = changed_settings(before, json.loads(json.dumps(settings)), FREE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say how its pictures were made: choose another --output, or --overwrite them"
        ) from error
    if changed:
        raise ValueError(
            f"the pictures in {folder} were made with other settings ({'; '.join(changed)}): choose another "
            "--output, or --overwrite them"
        )


def remove_pictures(folder: Path) -> None:
    """Remove the pictures of a folder that `describe` has described, and nothing else."""
    if (folder / RECORD).is_file():
        for path in [*(folder / "labels").rglob("*.png"), *(folder / "overlays").rglob("*.jpg")]:
            path.unlink()
