"""The presets that come with the project, found by name wherever it is installed."""

from pathlib import Path

FOLDER = Path(__file__).parent / "configs"


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_preset(name: str) -> str:
    """Return the file that ``--config`` names by its path or, if there is none, by the name of a preset.

    Raises:
        FileNotFoundError: ``name`` is neither a file nor a preset.
    """
    if Path(name).is_file():
        return name
    if name in preset_names():
        return str(FOLDER / f"{name}.yaml")
    raise FileNotFoundError(
        f"there is no configuration {name}: give a YAML file, or one of the presets "
        f"{', '.join(preset_names())}"
    )
