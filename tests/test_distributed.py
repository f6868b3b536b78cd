from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from hcl.data.images import DecodeError
from hcl.distributed import PATIENCE, LostRankError, World, choose_device, connect, share
from tests.ranks import on_ranks


@pytest.fixture
def joined(monkeypatch):
    """One of two ranks whose collectives are not there; what was asked of torch.distributed, in order."""
    asked = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(dist, "rendezvous", lambda url: iter([(dist.HashStore(), 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **how: asked.append((backend, how)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: asked.append("destroyed"))
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    return asked


def see_gpus(monkeypatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_ranks_on_gpus_join_nccl_each_with_its_own_device(joined, monkeypatch):
    see_gpus(monkeypatch, 2)
    monkeypatch.setattr(torch.cuda, "set_device", joined.append)
    with connect("cuda") as world:
        assert world == World(1, 2, torch.device("cuda", 1))
    chosen, (backend, how), ended = joined
    assert (chosen, backend, ended) == (torch.device("cuda", 1), "nccl", "destroyed")
    assert how["device_id"] == torch.device("cuda", 1)
    assert how["timeout"] == PATIENCE > timedelta(hours=1)


def test_ranks_on_cpus_join_gloo_without_a_device(joined):
    with connect("cpu"):
        pass
    (backend, how), ended = joined
    assert (backend, how["device_id"], ended) == ("gloo", None, "destroyed")


def test_ranks_that_are_restarted_do_not_see_the_addresses_of_those_before(joined, monkeypatch):
    shared, stores = dist.HashStore(), []
    monkeypatch.setattr(dist, "rendezvous", lambda url: iter([(shared, 1, 2)]))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        with connect("cpu"):
            (_, how) = joined[-1]
        stores.append(how["store"])
    stores[0].set("address", "dead")
    assert [store.check(["address"]) for store in stores] == [True, False]


def test_ranks_with_a_new_store_meet_whatever_number_of_restarts_each_has_counted(joined, monkeypatch):
    fresh = dist.HashStore()
    monkeypatch.setattr(dist, "rendezvous", lambda url: iter([(fresh, 1, 2)]))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with connect("cpu"):
        (_, how) = joined[-1]
    assert how["store"] is fresh


def test_a_rank_that_fails_does_not_wait_for_the_others_at_the_end(joined):
    with pytest.raises(ValueError, match="bad image"), connect("cpu"):
        raise ValueError("bad image")
    assert "destroyed" not in joined


@pytest.mark.parametrize("error", [DecodeError, RuntimeError])
@pytest.mark.parametrize("file", ["/data/igloo/1.jpg", "/data/gloo/1.jpg"])
def test_an_error_that_names_a_file_like_a_backend_is_no_lost_connection(joined, error, file):
    with pytest.raises(error, match=f"{file} cannot"), connect("cpu"):
        raise error(f"{file} cannot be decoded")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:17580"),
        RuntimeError("[/build/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:12983"),
        RuntimeError("[enforce fail at /build/third_party/gloo/gloo/transport/tcp/pair.cc:604] false"),
        dist.DistBackendError("NCCL communicator was aborted"),
    ],
)
def test_a_connection_that_breaks_is_a_lost_rank(joined, error):
    with pytest.raises(LostRankError, match="rank 1 lost its connection"), connect("cpu"):
        raise error


def test_rows_are_gathered_where_no_rank_has_any(monkeypatch):
    def all_gather(parts, tensor):
        for part in parts:
            part.copy_(tensor)

    monkeypatch.setattr(dist, "all_gather", all_gather)
    assert World(0, 2, torch.device("cpu")).all_gather_rows(torch.empty(0, 3)).shape == (0, 3)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    see_gpus(monkeypatch, 1)
    assert choose_device("auto") == torch.device("cuda", 0)
    assert choose_device("cpu", 1) == torch.device("cpu")


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    see_gpus(monkeypatch, 2)
    assert choose_device("cuda", 1) == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="local rank 2 has no GPU, because torch sees 2 of them: start as"):
        choose_device("auto", 2)


def _meet() -> None:
    """What each of three ranks does."""
    with connect("cpu") as world:
        rank = world.rank
        own = torch.full((2, 2), rank + 1.0)
        own[0, 1] = 0
        assert world.all_reduce(own).tolist() == [[6, 0], [6, 6]]
        assert world.all_reduce(own.T).is_contiguous()  # which NCCL requires
        assert world.broadcast(own.T).tolist() == [[1, 1], [0, 1]]
        assert world.all_gather(own.T)[:, 0].tolist() == [1, 0, 2, 0, 3, 0]
        assert own[1].tolist() == [rank + 1, rank + 1]  # arguments are left as they were
        assert world.all_gather_rows(torch.full((rank,), rank)).tolist() == [1, 2, 2]
        assert world.broadcast_object({"rank": rank}) == {"rank": 0}
        assert world.union({rank, "all"}) == {0, 1, 2, "all"}
        assert (world.any(rank == 1), world.any(False)) == (True, False)
        places = torch.arange(rank, 7, 3).flip(0)
        rows, mine = world.to_owners(places[:, None] * 10.0, places, 7)
        share = world.slice(7)
        assert rows[mine.argsort(), 0].tolist() == [10 * place for place in range(share.start, share.stop)]
        assert mine.sort().values.tolist() == list(range(share.stop - share.start))


def test_every_rank_has_what_the_collectives_promise():
    on_ranks(3, _meet)


@pytest.mark.parametrize("length", [0, 1, 7, 12])
def test_shares_in_order_are_the_whole(length):
    rows = list(range(length))
    parts = [rows[share(length, rank, 5)] for rank in range(5)]
    assert [row for part in parts for row in part] == rows
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
