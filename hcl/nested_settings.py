"""Settings as nested dicts: flattening them to dotted names, and comparing two of them."""

from typing import Any


def changed_settings(saved: dict[str, Any], current: dict[str, Any], free: frozenset[str]) -> list[str]:
    """List the settings that differ, as ``name: saved -> current``, except those named in ``free``."""
    before, now = flattened(saved), flattened(current)
    return [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in free and before.get(name) != now.get(name)
    ]


def flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to one dict with names such as ``backbone.name``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
