"""Tokens are computed once, go on where they stopped, and never survive what they were made from."""

import errno
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hcl.data.dataset import DataConfig, open_dataset
from hcl.distributed import World
from hcl.evaluation import token_store
from hcl.evaluation.fingerprint import fingerprint
from hcl.evaluation.protocol import Frame, ProtocolConfig
from hcl.evaluation.token_store import TokenStore, stored_tokens
from hcl.evaluation.tokens import TokenExtractor, untrained_head
from hcl.memory import GIB
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHead
from hcl.models.vit import VisionTransformer
from pipelines.labelled_images import EvaluationImages
from tests.evaluation.conftest import SMALL_HEAD
from tests.forks import FORKS, Fork

ALONE = World.alone(torch.device("cpu"))


@pytest.fixture
def config(scenes, tmp_path) -> ProtocolConfig:
    data = DataConfig("scenes", str(scenes), "val")
    return ProtocolConfig(
        data=data, size=64, batch_size=2, output=str(tmp_path / "out"), token_cache=str(tmp_path / "cache")
    )


class Counting:
    """An extractor that counts the images it is given, and may refuse some."""

    def __init__(self, extractor: TokenExtractor, most: int = 1000) -> None:
        self.extractor, self.seen, self.most = extractor, 0, most

    def __getattr__(self, name: str):
        return getattr(self.extractor, name)

    def __call__(self, images: torch.Tensor):
        if self.seen + len(images) > self.most:
            raise KeyboardInterrupt
        self.seen += len(images)
        return self.extractor(images)


def fill(config: ProtocolConfig, extractor, world: World = ALONE) -> TokenStore:
    with stored_tokens(config, open_dataset(config.data), extractor, world) as store:
        return TokenStore(store.tokens.clone(), store.attention.clone(), store.labels.clone(), store.grid)


def test_tokens_attention_and_labels_lie_in_the_order_of_the_data_set(config, extractor):
    store = fill(config, extractor)
    batches = list(EvaluationImages(open_dataset(config.data), size=64, batch_size=3))
    expected = extractor(batches[0].images)
    assert store.grid == (4, 4)
    assert store.tokens.dtype == torch.bfloat16
    torch.testing.assert_close(store.tokens.float(), expected.tokens, atol=1e-5, rtol=2**-8)
    torch.testing.assert_close(store.attention, expected.attention, atol=1e-6, rtol=1e-5)
    assert torch.equal(store.labels, batches[0].labels)


def test_a_second_protocol_computes_nothing(config, extractor):
    first, counting = fill(config, extractor), Counting(extractor, most=0)
    second = fill(config, counting)
    assert counting.seen == 0
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


def test_work_cut_short_goes_on_where_it_stopped(config, extractor):
    cut = Counting(extractor, most=2)
    with pytest.raises(KeyboardInterrupt):
        fill(config, cut)
    rest = Counting(extractor)
    store = fill(config, rest)
    assert (cut.seen, rest.seen) == (2, 1)
    whole = fill(replace(config, token_cache=config.token_cache + "2"), extractor)
    assert all(torch.equal(a, b) for a, b in zip(store[:3], whole[:3], strict=True))


def test_tokens_that_shall_not_be_kept_leave_nothing(config, extractor):
    fill(replace(config, keep_tokens=False), extractor)
    assert not Path(config.token_cache).exists()
    assert not Path(config.output).exists()
    Path(config.output).mkdir()
    fill(replace(config, keep_tokens=False), extractor)
    assert list(Path(config.output).iterdir()) == []


@dataclass(frozen=True)
class Together(World):
    """One of several ranks that are threads."""

    meeting: threading.Barrier

    def barrier(self) -> None:
        self.meeting.wait(timeout=60)


def test_a_rank_that_is_late_still_finds_tokens_that_shall_not_be_kept(config, extractor, monkeypatch):
    opening, meeting = token_store._open, threading.Barrier(2)

    def late(folder: Path, layout: token_store.Layout, *, mode: str) -> dict[str, np.memmap]:
        if mode == "r" and threading.current_thread().name.endswith("1"):
            time.sleep(0.5)
        return opening(folder, layout, mode=mode)

    def of_rank(rank: int) -> TokenStore:
        threading.current_thread().name = f"rank {rank}"
        world = Together(rank, 2, torch.device("cpu"), meeting)
        return fill(replace(config, keep_tokens=False), extractor, world)

    monkeypatch.setattr(token_store, "_open", late)
    with ThreadPoolExecutor(2) as ranks:
        first, second = ranks.map(of_rank, range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert not Path(config.output).exists()


def test_ranks_share_out_the_images(config, extractor):
    meeting, counting = threading.Barrier(2), [Counting(extractor) for _ in range(2)]

    def of_rank(rank: int) -> None:
        fill(config, counting[rank], Together(rank, 2, torch.device("cpu"), meeting))

    with ThreadPoolExecutor(2) as ranks:
        list(ranks.map(of_rank, range(2)))
    assert [rank.seen for rank in counting] == [2, 1]


def test_tokens_are_on_disk_before_they_are_marked_as_done(config, extractor, monkeypatch):
    flushed, flush = [], np.memmap.flush

    def noted(array: np.memmap) -> None:
        flushed.append(Path(array.filename).stem)
        flush(array)

    monkeypatch.setattr(np.memmap, "flush", noted)
    fill(config, extractor)
    assert flushed == ["tokens", "attention", "labels", "done"] * 2


def test_room_is_reserved_for_every_byte(config, extractor, monkeypatch):
    reserved, reserve = {}, os.posix_fallocate

    def noted(descriptor: int, offset: int, size: int) -> None:
        reserved[os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2]] = offset + size
        reserve(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", noted)
    fill(config, extractor)
    files = Path(config.token_cache).glob("*/*.npy")
    assert reserved == {file.name: file.stat().st_size for file in files}


@pytest.mark.parametrize(
    ("part", "value"), [("tokens", torch.nan), ("tokens", 3.4e38), ("attention", torch.inf)]
)
def test_tokens_that_are_not_finite_are_not_kept(config, extractor, part, value):
    """The largest bfloat16 is 3.39e38."""

    class Spoiling(Counting):
        def __call__(self, images: torch.Tensor):
            result = super().__call__(images)
            spoilt = getattr(result, part).clone()
            spoilt[-1].flatten(-2)[..., 0] = value
            return result._replace(**{part: spoilt})

    with pytest.raises(FloatingPointError, match=r"not finite.*val_00001[^,]*$"):
        fill(config, Spoiling(extractor))
    counting = Counting(extractor)
    fill(config, counting)
    assert counting.seen == 3


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"junk"), lambda path: os.truncate(path, 200)]
)
def test_a_damaged_store_is_made_anew(config, extractor, damage, caplog):
    first = fill(config, extractor)
    (tokens,) = Path(config.token_cache).glob("*/tokens.npy")
    damage(tokens)
    again = fill(config, extractor)
    assert torch.equal(first.tokens, again.tokens)
    assert "damaged" in caplog.text


@pytest.mark.parametrize(("shape", "dtype"), [((3, 16, 24), np.float16), ((2, 16, 24), np.uint16)])
def test_arrays_of_another_kind_are_damage(config, extractor, caplog, shape, dtype):
    first = fill(config, extractor)
    (tokens,) = Path(config.token_cache).glob("*/tokens.npy")
    np.save(tokens, np.zeros(shape, dtype))
    assert torch.equal(first.tokens, fill(config, extractor).tokens)
    assert "damaged" in caplog.text


def test_a_fault_of_the_machine_is_no_damage(config, extractor, monkeypatch):
    first, opening = fill(config, extractor), np.lib.format.open_memmap

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np.lib.format, "open_memmap", fails)
    with pytest.raises(OSError, match="Too many open files"):
        fill(config, extractor)
    monkeypatch.setattr(np.lib.format, "open_memmap", opening)
    again = fill(config, Counting(extractor, most=0))
    assert torch.equal(first.tokens, again.tokens)


def test_tokens_that_vanish_while_they_are_computed_are_never_zeros(config, extractor, monkeypatch):
    filling = token_store._fill

    def removed(folder: Path, *rest: object) -> None:
        filling(folder, *rest)
        array = np.lib.format.open_memmap(folder / "done.npy", mode="r+")
        array[1] = 0

    monkeypatch.setattr(token_store, "_fill", removed)
    with pytest.raises(OSError, match="removed or altered"):
        fill(config, extractor)


def test_a_full_disk_is_told_before_any_work(config, extractor, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    counting = Counting(extractor)
    with pytest.raises(OSError, match="choose another folder with --token_cache"):
        fill(config, counting)
    assert counting.seen == 0


def test_a_set_larger_than_all_may_take_is_refused_before_any_work(config, extractor):
    fill(config, extractor)
    other = replace(config, size=80, token_cache_gib=1e-5)
    counting = Counting(extractor)
    with pytest.raises(OSError, match=r"more than the 0\.0 GiB of --token_cache_gib: raise it"):
        fill(other, counting)
    assert counting.seen == 0
    fill(config, counting)
    assert counting.seen == 0


def test_two_splits_of_one_protocol_do_not_make_room_for_each_other(config, extractor, caplog):
    """Each fits, the two together do not: both stay, and are there the next time."""
    with stored_tokens(config, open_dataset(config.data), extractor, ALONE) as store:
        taken = sum(array.nbytes for array in (store.tokens, store.attention, store.labels))
    shutil.rmtree(config.token_cache)
    tight = replace(config, token_cache_gib=1.6 * taken / GIB)
    train = open_dataset(replace(config.data, split="train"))
    for most in (7, 0):
        counting = Counting(extractor, most=most)
        with (
            stored_tokens(tight, open_dataset(config.data), counting, ALONE),
            stored_tokens(tight, train, counting, ALONE),
        ):
            pass
        assert counting.seen == most
    assert "more than --token_cache_gib, because the others are in use" in caplog.text


def test_what_cannot_be_reserved_leaves_nothing(config, extractor, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="quota"):
        fill(config, extractor)
    assert [path for path in Path(config.token_cache).iterdir() if path.is_dir()] == []


def test_tokens_may_be_larger_than_memory(config, extractor, monkeypatch):
    """Linux refuses to map more than its memory in a form that could be written."""
    modes, opening = [], token_store._open

    def noting(folder: Path, layout: token_store.Layout, *, mode: str) -> dict[str, np.memmap]:
        modes.append(mode)
        return opening(folder, layout, mode=mode)

    monkeypatch.setattr(token_store, "_open", noting)
    fill(config, extractor)
    assert "c" not in modes


def test_pickles_in_a_store_are_not_read(config, extractor, tmp_path):
    fill(config, extractor)
    (tokens,) = Path(config.token_cache).glob("*/tokens.npy")
    np.save(tokens, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert fill(config, extractor).tokens.dtype == torch.bfloat16


def test_the_name_follows_from_everything_that_makes_tokens(config, extractor, backbone, scenes):
    dataset, frame = open_dataset(config.data), Frame(64, "resize")
    own = fingerprint(dataset, extractor, frame)
    assert own == fingerprint(dataset, extractor, frame)
    others = [
        fingerprint(open_dataset(replace(config.data, split="train")), extractor, frame),
        fingerprint(dataset, extractor, Frame(80, "resize")),
        fingerprint(dataset, extractor, Frame(64, "shorter-crop")),
    ]
    device = torch.device("cpu")
    for kind, head, precision in [
        ("head", untrained_head(backbone, SMALL_HEAD, seed=4), "fp32"),
        ("head", extractor.head, "bf16"),
        ("pmvit", None, "fp32"),
        ("backbone", None, "fp32"),
    ]:
        other = TokenExtractor(backbone, kind, head, device=device, precision=precision)
        others.append(fingerprint(dataset, other, frame))
    fewer = TokenExtractor(PMViT(backbone.vit, [16, 32]), "pmvit", device=device)
    others.append(fingerprint(dataset, fewer, frame))
    heads = SegHead(extractor.head.in_features, replace(SMALL_HEAD, heads=6))
    heads.load_state_dict(extractor.head.state_dict())
    others.append(fingerprint(dataset, TokenExtractor(backbone, "head", heads, device=device), frame))
    shape = replace(backbone.vit.config, heads=2)
    vit = VisionTransformer(shape)
    vit.load_state_dict(backbone.vit.state_dict())
    for kind, levels in (("pmvit", [16]), ("backbone", [16]), ("pmvit", backbone.patch_sizes)):
        others.append(fingerprint(dataset, TokenExtractor(PMViT(vit, levels), kind, device=device), frame))
    for file in (dataset.samples[0].image, dataset.samples[2].label):
        content, status = file.read_bytes(), file.stat()
        before = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        others.append(fingerprint(dataset, extractor, frame))
        file.write_bytes(content + b" ")
        os.utime(file, ns=before)
        others.append(fingerprint(dataset, extractor, frame))
        file.write_bytes(content)
        os.utime(file, ns=before)
    assert len({own, *others}) == 1 + len(others)
    assert own == fingerprint(dataset, extractor, frame)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("hcl.__version__", "0.0.0"),
        ("hcl.evaluation.fingerprint.FORMAT", 1),
        ("hcl.evaluation.fingerprint.decoder", lambda device: {"jpeg_fancy_upsampling": False}),
    ],
)
def test_tokens_that_other_code_made_have_another_name(config, extractor, monkeypatch, place, value):
    dataset, frame = open_dataset(config.data), Frame(64, "resize")
    own = fingerprint(dataset, extractor, frame)
    monkeypatch.setattr(place, value)
    assert fingerprint(dataset, extractor, frame) != own


def fill_in_a_process(config: ProtocolConfig, seed: int, counts) -> None:
    from hcl.models.backbones import BackboneConfig, build_backbone

    backbone = build_backbone(BackboneConfig("tiny"))
    head = untrained_head(backbone, SMALL_HEAD, seed=seed)
    counting = Counting(TokenExtractor(backbone, "head", head, device=torch.device("cpu")))
    fill(config, counting)
    counts.put(counting.seen)


def test_programs_that_want_the_same_tokens_compute_them_once(config):
    counts = FORKS.Queue()
    programs = [Fork(fill_in_a_process, config, 3, counts) for _ in range(2)]
    for program in programs:
        program.communicate(timeout=120)
    assert sorted(counts.get(timeout=5) for _ in programs) == [0, 3]
