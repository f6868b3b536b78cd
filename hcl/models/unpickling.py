"""Unpickling files of `torch.save`: tensors, plain containers and, through stand-ins, numpy's plain numbers.

Many files hold a best score or a running mean beside the weights, as values of numpy. numpy's own functions
allocate memory of any shape and create any type that a file names; the stand-ins only accept plain numbers
that the file contains.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


def unpickled(path: Path) -> Any:
    """Read a file onto the CPU; numpy scalars become Python numbers, numpy arrays tensors.

    Raises:
        Exception: any error of reading; an `UnpicklingError` if the file would have to execute code.
    """
    with torch.serialization.safe_globals(STAND_INS):
        content = torch.load(path, map_location="cpu", weights_only=True)
    room = path.stat().st_size
    for tensor in tensors_in(content):
        if isinstance(tensor, Array):
            room -= len(tensor.content[-1])
            if room < 0:  # several arrays may claim the same bytes
                raise ValueError("its numpy arrays claim more bytes than the file has")
            tensor.become_tensor()
    return content


def tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield the tensors in containers that are nested to any depth."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple, set, frozenset)) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value, *value.values()] if isinstance(value, dict) else value


class Kind:
    """Stands in for ``numpy.dtype``: a kind of plain number."""

    def __init__(self, name: str, *_: Any) -> None:
        if name not in KINDS:
            raise UnpicklingError(f"numpy values of kind {name!r:.20}")
        self.stored = self.native = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.stored = self.native.newbyteorder(state[1])


class Array(Tensor):
    """Stands in for ``numpy.ndarray``: an empty tensor with the content that it is to have."""

    content: tuple[tuple[int, ...], Kind, bool, bytes]
    """Shape, kind, whether the numbers are stored by columns, and the numbers."""

    def __new__(cls) -> "Array":  # noqa: D102
        return torch.empty(0).as_subclass(cls)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, *content = state
        if list(map(type, content)) != [tuple, Kind, bool, bytes]:
            raise UnpicklingError("a numpy array that does not hold numbers")
        self.content = tuple(content)

    def become_tensor(self) -> None:
        """Become a plain tensor with the content.

        Raises:
            ValueError: the numbers do not fit the shape.
        """
        shape, kind, by_columns, numbers = self.content
        values = np.frombuffer(numbers, kind.stored).astype(kind.native)
        self.data = torch.from_numpy(values.reshape(shape, order="F" if by_columns else "C"))
        del self.content
        self.__class__ = Tensor  # type: ignore[assignment]  # as torch's uninitialised parameters do


def reconstruct(*_: Any) -> Array:
    """Stands in for numpy's ``_reconstruct``: an array whose content is set next."""
    return Array()


def scalar(kind: Kind, number: bytes) -> complex:
    """Stands in for numpy's ``scalar``: a Python number.

    Raises:
        UnpicklingError: what is stored is not one number.
    """
    if type(kind) is not Kind or type(number) is not bytes or len(number) != kind.native.itemsize:
        raise UnpicklingError("a numpy scalar that is not a number")
    return np.frombuffer(number, kind.stored).item()


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (Kind, "numpy.dtype"),
    (Array, "numpy.ndarray"),
    (scalar, "numpy.core.multiarray.scalar"),  # numpy 1
    (reconstruct, "numpy.core.multiarray._reconstruct"),
    (scalar, "numpy._core.multiarray.scalar"),  # numpy 2
    (reconstruct, "numpy._core.multiarray._reconstruct"),
]
