"""The presets that come with the project, found by name wherever it is installed."""

from pathlib import Path

FOLDER = Path(__file__).parent / "configs"


def preset_names() -> list[str]:
    """Names of the presets, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_preset(name: str) -> str:
    """The file that ``--config`` means: a path of one, or else the name of a preset.

    Raises:
        FileNotFoundError: it is neither.
    """
    if Path(name).is_file():
        return name
    if name in preset_names():
        return str(FOLDER / f"{name}.yaml")
    raise FileNotFoundError(
        f"there is no configuration {name}: give a YAML file, or a preset's name: {', '.join(preset_names())}"
    )
