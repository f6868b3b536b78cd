from types import SimpleNamespace

import pytest
import torch

from hcl.engine import replay
from hcl.engine.replay import Graph, Replayed


def test_a_module_is_replayed_in_place():
    module = torch.nn.Linear(3, 2)
    state = module.state_dict()
    replay.replay(module)
    assert isinstance(module.forward, Replayed)
    assert module.state_dict().keys() == state.keys()
    x = torch.randn(4, 3)
    assert torch.equal(module(x), torch.nn.functional.linear(x, module.weight, module.bias))


def on_gpu(*shape: int) -> SimpleNamespace:
    """What is asked of a tensor on a GPU before it is computed with."""
    return SimpleNamespace(is_cuda=True, shape=shape, dtype=torch.float32, device=torch.device("cuda"))


@pytest.fixture
def recorded(monkeypatch) -> list:
    """Shapes of the graphs that are made; each answers "replayed"."""
    shapes = []

    def record(function, x, *, pool):
        shapes.append((x.shape, pool))
        answer = lambda x: "replayed"  # noqa: E731 - it needs an attribute
        answer.pool = "pool"
        return answer

    monkeypatch.setattr(replay, "Graph", record)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return shapes


@torch.no_grad()
def test_a_shape_is_recorded_when_it_comes_again(recorded):
    replayed = Replayed(lambda x: "computed")
    assert [replayed(on_gpu(2)) for _ in range(3)] == ["computed", "replayed", "replayed"]
    assert [replayed(on_gpu(3)) for _ in range(3)] == ["computed", "replayed", "replayed"]
    assert recorded == [((2,), None), ((3,), "pool")]


@torch.no_grad()
def test_a_number_format_is_recorded_for_itself(recorded, monkeypatch):
    replayed = Replayed(lambda x: "computed")
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(replay, "product_dtype", lambda x, dtype=dtype: dtype)
        assert [replayed(on_gpu(2)) for _ in range(2)] == ["computed", "replayed"]


@torch.no_grad()
def test_there_are_not_too_many_graphs(recorded):
    replayed = Replayed(lambda x: "computed")
    for size in range(2 * replay.MOST_GRAPHS):
        for _ in range(2):
            replayed(on_gpu(size))
    assert len(recorded) == replay.MOST_GRAPHS
    assert replayed(on_gpu(0)) == "replayed"
    assert replayed(on_gpu(2 * replay.MOST_GRAPHS - 1)) == "computed"


@torch.no_grad()
def test_within_a_larger_recording_the_function_is_called(recorded, monkeypatch):
    replayed = Replayed(lambda x: "computed")
    assert [replayed(on_gpu(2)) for _ in range(2)] == ["computed", "replayed"]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert replayed(on_gpu(2)) == "computed"


def test_with_gradients_and_on_a_cpu_the_function_is_called(recorded):
    replayed = Replayed(lambda x: "computed")
    assert [replayed(on_gpu(2)) for _ in range(3)] == ["computed"] * 3
    with torch.no_grad():
        assert [replayed(torch.ones(2)) for _ in range(3)] == ["computed"] * 3
    assert recorded == []


@pytest.mark.gpu
@torch.no_grad()
def test_a_replay_computes_anew_and_gives_what_stays():
    replayed = Replayed(lambda x: (x.square(), {"sum": x.sum()}))
    for shape in ((3, 4), (5,), (3, 4), (5,)):
        inputs = torch.randn(5, *shape, device="cuda").unbind()
        results = [replayed(x) for x in inputs]
        for x, (square, rest) in zip(inputs, results, strict=True):
            assert torch.equal(square, x.square())
            torch.testing.assert_close(rest["sum"], x.sum())
    assert all(isinstance(graph, Graph) for graph in replayed._graphs.values())
    assert len(replayed._graphs) == 2
