"""Range checks of settings: each raises a ValueError that names the first setting out of range.

Except in `require_above_zero`, a setting that is None counts as not given and passes. ``prefix`` is put
before the setting's name in the message.
"""

from typing import Any


def require_at_least(least: int, settings: Any, *names: str, prefix: str = "") -> None:
    """Require each named setting to be at least ``least``."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            bound = "must not be negative" if least == 0 else f"must be at least {least}"
            raise ValueError(f"{prefix}{name} is {value}; it {bound}")


def require_above_zero(settings: Any, *names: str, prefix: str = "") -> None:
    """Require each named setting to be greater than 0, which NaN is not."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{prefix}{name} is {getattr(settings, name)}; it must be above 0")


def require_share(settings: Any, *names: str, prefix: str = "") -> None:
    """Require each named setting to lie in (0, 1]."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"{prefix}{name} is {value}; it must lie in (0, 1]")
