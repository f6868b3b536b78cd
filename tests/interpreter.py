"""Triton's interpreter, which here stands in for a GPU, without what it does over and over."""

import inspect
from functools import cache
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


@cache
def _builtins(owner: Any) -> list[str]:
    return [name for name, member in inspect.getmembers(owner) if tl.core.is_builtin(member)]


def _patch_builtin(owner: Any, builder: Any, scope: Any) -> None:
    for name in _builtins(owner):
        member = getattr(owner, name)
        if tl.core.is_builtin(member):
            interpreter._patch_attr(owner, name, member, builder, scope)


def remember_builtins() -> None:
    """Have the interpreter look once for what of the language is built in.

    It looks through the whole language at every call of one kernel's function by another, a quarter of its
    time. What it then puts in their places is the same.
    """
    interpreter._patch_builtin = _patch_builtin
