"""Files of weights that someone made who means harm: nothing in them is executed, none takes memory."""

import builtins
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hcl.models.head_files import load_seg_head
from hcl.models.seg_head import SegHead, SegHeadConfig
from hcl.models.weights import CheckpointError, load_into, read_checkpoint
from tests.models.hostile import (
    READERS,
    Calls,
    archive,
    little_memory,  # noqa: F401
    refuse,
    saved_entries,
    with_pickle,
)


def claiming(elements: int) -> dict[str, bytes]:
    """A tensor of ten elements whose storage and shape claim to have more."""
    number = b"J" + struct.pack("<i", elements)
    return with_pickle(
        saved_entries({"weight": torch.arange(10.0)}), lambda body: body.replace(b"K\n", number)
    )


HARM = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "subprocess": lambda mark: Calls(subprocess.check_call, ["touch", str(mark)]),
    "eval": lambda mark: Calls(builtins.eval, f"open({str(mark)!r}, 'w')"),
    "exec": lambda mark: Calls(builtins.exec, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Calls(open, str(mark), "w"),
    "getattr": lambda mark: Calls(getattr, str, "join"),
    "a path": lambda mark: Calls(Path.touch, mark),
    "torch.load": lambda mark: Calls(torch.load, str(mark)),
    "numpy": lambda mark: Calls(np.save, str(mark), np.zeros(3)),
}


@pytest.mark.parametrize("format", ["archive", "before archives", "pickle"])
@pytest.mark.parametrize("harm", HARM)
def test_no_call_in_a_file_is_made(tmp_path, harm, format):
    mark, path = tmp_path / "mark", tmp_path / "hostile.pth"
    content = {"momentum_seg_head": HARM[harm](mark), "linear_classifier": {}}
    if format == "pickle":
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=format == "archive")
    refuse(path, "was refused|cannot be read")
    assert not list(tmp_path.glob("mark*"))


def test_the_oldest_format_is_refused_unexecuted(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as file:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            body = pickle.dumps(Calls(os.system, f"touch {mark}"), 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            file.addfile(entry, io.BytesIO(body))
        outside = tarfile.TarInfo("../outside")
        file.addfile(outside, io.BytesIO())
    refuse(path, "cannot be read")
    assert not mark.exists()
    assert not (tmp_path.parent / "outside").exists()


def test_a_script_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    archive(path, {"a/constants.pkl": b"", **saved_entries({}), "a/code/x.py": b"raise SystemExit"})
    refuse(path)


def test_one_bit_that_was_flipped_in_an_archive_is_found(tmp_path):
    path = tmp_path / "flipped.pth"
    torch.save({"weight": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.find(torch.arange(1000.0).numpy().tobytes()) + 2001] ^= 1
    path.write_bytes(content)
    refuse(path, r"is damaged: .*data/0 in it does not match")


@pytest.mark.parametrize("entry", ["data.pkl", "data/0", "more"])
def test_an_archive_that_would_unpack_to_more_than_its_size_is_refused(tmp_path, entry):
    entries = saved_entries({"weight": torch.zeros(10)})
    (stem,) = {name.split("/")[0] for name in entries}
    entries[f"{stem}/{entry}"] = bytes(64 << 20)
    path = archive(tmp_path / "bomb.pth", entries, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 17
    refuse(path, "would unpack to")


def test_an_archive_that_would_unpack_to_a_little_more_is_refused(tmp_path):
    entries = saved_entries({"weight": torch.zeros(10)})
    entries["archive/more"] = np.random.default_rng(0).bytes(100_000) + bytes(50_000)
    refuse(archive(tmp_path / "bomb.pth", entries, zipfile.ZIP_DEFLATED), "would unpack to")


def test_entries_that_overlap_are_refused(tmp_path):
    path = archive(tmp_path / "bomb.pth", {f"{i}": bytes(1000 if i == 0 else 0) for i in range(40)})
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\x01\x02")
    first = content[start + 16 : start + 28], content[start + 42 : start + 46]  # checksum and sizes, offset
    while (start := content.find(b"PK\x01\x02", start + 1)) > 0:
        content[start + 16 : start + 28], content[start + 42 : start + 46] = first
    path.write_bytes(content)
    refuse(path, "would unpack to")


def test_an_archive_with_a_second_directory_is_refused(tmp_path):
    """One that says little for Python's reader, which looks before the end, and one that torch follows."""
    entries = saved_entries({"weight": torch.zeros(1 << 20)})
    content = archive(tmp_path / "bomb.pth", entries, zipfile.ZIP_DEFLATED).read_bytes()
    end = content.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<II", content[end + 12 : end + 20])
    harmless = bytearray(content[start : start + size])
    place = -1
    while (place := harmless.find(b"PK\x01\x02", place + 1)) >= 0:
        harmless[place + 24 : place + 28] = harmless[place + 20 : place + 24]  # unpacked size = packed size
    path = tmp_path / "two.pth"
    path.write_bytes(content[: start + size] + harmless + content[end:])
    assert torch.load(path, weights_only=True)["weight"].numel() == 1 << 20
    refuse(path, "does not begin with its first entry")


@pytest.mark.parametrize("elements", [11, 5_000_000, 2**31 - 1, -5])
def test_a_tensor_that_claims_more_than_is_there_is_refused(tmp_path, elements):
    refuse(archive(tmp_path / "claims.pth", claiming(elements)))


def test_a_tensor_that_repeats_one_element_is_refused(tmp_path):
    state = {
        "weight": torch.zeros(1, 1, 1, 1).expand(30_000, 30_000, 1, 1),
        "bias": torch.zeros(1).expand(30_000),
    }
    torch.save({"linear_classifier": state, "momentum_seg_head": state}, tmp_path / "wide.pth")
    refuse(tmp_path / "wide.pth", "not stored element by element")


@pytest.mark.filterwarnings("ignore")  # torch's, of what is seldom used
@pytest.mark.parametrize("layout", ["sparse", "csr", "meta", "quantized"])
def test_tensors_of_other_kinds_are_refused(tmp_path, layout):
    tensor = {
        "sparse": lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**9, 10**9)),
        "csr": lambda: torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 10**9)),
        "meta": lambda: torch.empty(10**6, 10**6, device="meta"),
        "quantized": lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8),
    }[layout]()
    torch.save({"linear_classifier": {"weight": tensor}, "momentum_seg_head": {}}, tmp_path / "odd.pth")
    refuse(tmp_path / "odd.pth")


def test_vectors_that_ask_for_a_matrix_are_refused(tmp_path):
    state = SegHead(6, SegHeadConfig(width=12, hidden=4, projection_dim=2)).state_dict()
    state["projection_head.0.bias"] = torch.zeros(400_000)
    torch.save({"momentum_seg_head": state}, tmp_path / "head.pth")
    with pytest.raises(
        CheckpointError, match=r"head\.pth does not fit this SegHead: projection_head\.0\.weight"
    ):
        load_seg_head(tmp_path / "head.pth")


def test_nothing_is_written_by_names_that_lead_elsewhere(tmp_path):
    entries = saved_entries({"weight": torch.arange(10.0)})
    (stem,) = {name.split("/")[0] for name in entries}
    entries |= {f"{stem}/../../outside": b"x", f"{stem}//tmp/hcl-outside": b"x"}
    folder = tmp_path / "inner"
    folder.mkdir()
    path = archive(folder / "traversal.pth", entries)
    assert torch.equal(read_checkpoint(path)["weight"], torch.arange(10.0))
    refuse(archive(folder / "traversal.pth", entries | {"../outside": b"x", "/tmp/hcl-outside": b"x"}))
    assert [p.name for p in tmp_path.iterdir()] == ["inner"]
    assert [p.name for p in folder.iterdir()] == ["traversal.pth"]
    assert not Path("/tmp/hcl-outside").exists()


def test_a_deep_nest_is_read_or_refused_and_nothing_overflows(tmp_path):
    deep = b"\x80\x02" + b"}" + b"X\x01\x00\x00\x00a" + b"]" * 20_000 + b"a" * 19_999 + b"s."
    path = archive(tmp_path / "deep.pth", with_pickle(saved_entries({}), lambda body: deep))
    assert list(read_checkpoint(path)) == ["a"]
    for read in READERS[1:]:
        with pytest.raises(CheckpointError, match=r"deep\.pth has no"):
            read(path)


def test_a_nest_within_itself_is_read(tmp_path):
    around: dict[str, Any] = {"weight": torch.zeros(2)}
    around["around"] = [around]
    torch.save(around, tmp_path / "around.pth")
    assert read_checkpoint(tmp_path / "around.pth")["around"][0]["weight"].shape == (2,)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.zeros(2, 3, dtype=torch.int64),
            r"weight is torch\.int64 in the file, torch\.float32 in the model",
        ),
        (torch.zeros(2, 3, dtype=torch.bool), r"weight is torch\.bool"),
        (torch.zeros(2, 3, dtype=torch.complex64), r"weight is torch\.complex64"),
        (torch.full((2, 3), torch.nan), "weight holds values that are not finite"),
        (torch.full((2, 3), torch.inf), "weight holds values that are not finite"),
        (torch.full((2, 3), 1e300, dtype=torch.float64), "weight holds values that are not finite"),
    ],
)
def test_values_that_are_no_weights_are_refused(value, message):
    with pytest.raises(CheckpointError, match=message):
        load_into(nn.Linear(3, 2), {"weight": value, "bias": torch.zeros(2)}, "w.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(dtype):
    linear = nn.Linear(3, 2)
    load_into(linear, {"weight": torch.ones(2, 3, dtype=dtype), "bias": torch.zeros(2, dtype=dtype)}, "w.pth")
    assert torch.equal(linear.weight, torch.ones(2, 3))


def test_weights_of_backbones_may_be_safetensors(tmp_path):
    state = nn.Linear(3, 2).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    read = read_checkpoint(tmp_path / "w.safetensors")
    assert all(torch.equal(read[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, struct.pack("<Q", 1 << 40) + b"{}", b"\2" + bytes(7) + b"{}x"]
)
def test_damaged_safetensors_are_refused_by_name(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    refuse(path, "cannot be read")


WRONG_HEADS = [
    {"momentum_seg_head": []},
    {"momentum_seg_head": {1: 2}},
    {"momentum_seg_head": {"multi_scale_fuser.weight": "x"}},
    {"momentum_seg_head": {"multi_scale_fuser.weight": torch.zeros(3)}},
    {"momentum_seg_head": {"multi_scale_fuser.weight": torch.zeros(0, 3)}},
    {"momentum_seg_head": {"multi_scale_fuser.weight": torch.zeros(2, 3), "projection_head.0.bias": 1}},
    {"linear_classifier": {"weight": [1]}},
    {"linear_classifier": {"weight": torch.zeros(2, 3, 1)}},
    {"linear_classifier": {"weight": torch.zeros(0, 3, 1, 1)}},
    {"linear_classifier": {"weight": torch.zeros(2, 3, 1, 1), "bias": None}},
]


@pytest.mark.parametrize("content", WRONG_HEADS, ids=range(len(WRONG_HEADS)))
def test_files_of_another_make_are_refused_by_name(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    for read in READERS[1:]:
        with pytest.raises(CheckpointError, match=r"other\.pth"):
            read(tmp_path / "other.pth")


@pytest.mark.parametrize("heads", [5, 0, -1, 10**12])
def test_a_recorded_number_of_heads_that_does_not_fit_is_refused(tmp_path, heads):
    state = SegHead(6, SegHeadConfig(width=12, hidden=4, projection_dim=2)).state_dict()
    torch.save({"momentum_seg_head": state, "config": {"head": {"heads": heads}}}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match=r"head\.pth holds no SegHead: .*heads"):
        load_seg_head(tmp_path / "head.pth")
    torch.save({"momentum_seg_head": state, "config": "none"}, tmp_path / "head.pth")
    assert load_seg_head(tmp_path / "head.pth").config.heads == 12


FUZZ = """
import sys
from pathlib import Path
import numpy as np
from hcl.models.head_files import load_seg_head
from hcl.models.weights import CheckpointError
folder, count = Path(sys.argv[1]), int(sys.argv[2])
rng, refused, damaged = np.random.default_rng(0), 0, folder / "damaged.pth"
originals = [(folder / name).read_bytes() for name in ("archive.pth", "legacy.pth")]
weights = load_seg_head(folder / "archive.pth").state_dict()
for case in range(count):
    body = bytearray(originals[case % 2])
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(body)))
        body[start : start + int(rng.choice([0, 1, 1, 8, 2000]))] = rng.bytes(rng.integers(0, 8))
    damaged.write_bytes(body)
    try:
        read = load_seg_head(damaged).state_dict()
    except CheckpointError as error:
        assert str(damaged) in str(error)
        refused += 1
    else:  # an archive has checksums
        assert case % 2 or all(read[key].equal(value) for key, value in weights.items())
print(refused)
"""


def test_bytes_changed_at_random_are_refused_by_name_or_read(tmp_path):
    count = int(os.environ.get("HCL_FUZZ", "300"))
    content = {
        "momentum_seg_head": SegHead(6, SegHeadConfig(width=12, hidden=4, projection_dim=2)).state_dict()
    }
    torch.save(content, tmp_path / "archive.pth")
    torch.save(content, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path), str(count)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120 + count,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > count / 2
