"""numpy's numbers beside weights are read; what else numpy can pickle is refused, and takes no memory."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hcl.models.head_files import load_linear_classifier
from hcl.models.weights import read_checkpoint
from tests.models.hostile import (
    Calls,
    archive,
    little_memory,  # noqa: F401
    refuse,
    saved_entries,
    with_pickle,
)

NUMBERS = {
    "best_iou": np.float64(0.7),
    "epoch": np.int64(3),
    "half": np.float16(0.5),
    "done": np.bool_(True),
    "wave": np.complex64(1 + 2j),
    "foreign": np.dtype(">i4").type(-5),
}
ARRAYS = {
    "centroids": np.arange(6, dtype=np.float32).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "foreign": np.arange(5, dtype=">i4"),
    "mask": np.array([True, False]),
    "one": np.array(5.5),
    "state": np.arange(3, dtype=np.uint32),
}


def save(content: Any, path: Path, *, numpy: str = "_core", archived: bool = True) -> Path:
    """A file as torch.save writes it with numpy 1 ("core") or numpy 2 ("_core")."""

    def renamed(body: bytes) -> bytes:
        return re.sub(rb"numpy\._?core\.", f"numpy.{numpy}.".encode(), body)

    if archived:
        return archive(path, with_pickle(saved_entries(content), renamed))
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(renamed(buffer.getvalue()))
    return path


@pytest.mark.parametrize("archived", [True, False], ids=["archive", "before archives"])
@pytest.mark.parametrize("numpy", ["core", "_core"])
def test_numbers_and_arrays_beside_weights_are_read(tmp_path, numpy, archived):
    content = {"weight": torch.ones(2), **NUMBERS, "arrays": (ARRAYS, [ARRAYS])}
    read = read_checkpoint(save(content, tmp_path / "w.pth", numpy=numpy, archived=archived))
    assert torch.equal(read["weight"], torch.ones(2))
    assert {name: read[name] for name in NUMBERS} == {name: value.item() for name, value in NUMBERS.items()}
    assert {type(read[name]) for name in NUMBERS} == {float, int, bool, complex}
    arrays, (again,) = read["arrays"]
    assert arrays is again
    for name, array in ARRAYS.items():
        native = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        assert type(arrays[name]) is torch.Tensor
        assert arrays[name].dtype == native.dtype
        assert torch.equal(arrays[name], native)


def test_weights_may_be_arrays(tmp_path):
    weight = np.random.default_rng(0).normal(size=(3, 4, 1, 1)).astype(np.float32)
    state = {"module.weight": weight, "module.bias": np.zeros(3)}
    classifier = load_linear_classifier(save({"linear_classifier": state}, tmp_path / "w.pth"))
    assert torch.equal(classifier.weight, torch.from_numpy(weight))


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, "a", None], dtype=object),
        np.array(["a", "b"]),
        np.array([b"a"]),
        np.zeros(2, dtype=[("x", "f4"), ("y", "i4")]),
        np.array(["2026-01-01"], dtype="M8[D]"),
        np.str_("a"),
        np.void(b"ab"),
        np.datetime64("2026-01-01"),
        np.random.default_rng(0),
        np.ma.masked_array([1.0, 2.0], [True, False]),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_other_things_of_numpy_are_refused(tmp_path, value):
    refuse(save({"linear_classifier": {}, "other": value}, tmp_path / "w.pth"), "was refused|cannot be read")


class Built(Calls):
    """Unpickling this calls a function and hands the result a state."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], state: Any) -> None:
        self.call = function, arguments, state


scalar = np.float64(0).__reduce__()[0]
reconstruct = np.zeros(1).__reduce__()[0]
EMPTY = (np.ndarray, (0,), b"b")
FLOAT = np.dtype("f8")
MANY = 10**12
HARM = {
    "an array of a size": Calls(np.ndarray, (MANY,)),
    "a reconstructed size": Calls(reconstruct, np.ndarray, (MANY,), b"d"),
    "a large shape": Built(reconstruct, EMPTY, (1, (MANY,), FLOAT, False, b"12345678")),
    "a small shape": Built(reconstruct, EMPTY, (1, (0, MANY), FLOAT, False, b"12345678")),
    "a shape below 0": Built(reconstruct, EMPTY, (1, (-MANY, -1), FLOAT, False, b"12345678")),
    "half a number": Built(reconstruct, EMPTY, (1, (1,), FLOAT, False, b"1234")),
    "a list for numbers": Built(reconstruct, EMPTY, (1, (1,), FLOAT, False, [1.0])),
    "no state": Built(reconstruct, EMPTY, ()),
    "objects for a kind": Calls(np.dtype, "O"),
    "parts for a kind": Calls(np.dtype, ("f8", (MANY,))),
    "fields for a kind": Calls(np.dtype, [("x", "O")]),
    "a list for a scalar": Calls(scalar, FLOAT, [1]),
    "two scalars": Calls(scalar, FLOAT, b"12345678" * 2),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_numpy_would_make_of_a_file_is_not_made(tmp_path, harm):
    content = {"linear_classifier": {}, "value": HARM[harm]}
    refuse(save(content, tmp_path / "w.pth"), "was refused|cannot be read")


def test_the_kinds_of_numpy_stay_as_they_are(tmp_path):
    turned = Built(np.dtype, ("f8",), (3, ">", None, None, None, -1, -1, 0))
    content = {"number": Calls(scalar, turned, np.array(0.5, ">f8").tobytes())}
    assert read_checkpoint(save(content, tmp_path / "w.pth")) == {"number": 0.5}
    assert np.dtype("f8").isnative


def test_arrays_that_share_their_numbers_take_no_more_than_the_file(tmp_path):
    numbers = bytes(1 << 20)
    same = [Built(reconstruct, EMPTY, (1, (1 << 20,), np.dtype("u1"), False, numbers)) for _ in range(4000)]
    path = save({"linear_classifier": {}, "arrays": same}, tmp_path / "w.pth")
    assert path.stat().st_size < 3 << 20
    refuse(path, "its numpy arrays claim more bytes than the file has")
