"""Attention of bfloat16 on a CPU; where the processor cannot multiply it the products are slow, and right."""

import pytest
import torch

from kernels.attention import attend, products, reference


def drawn(lengths, heads=2, width=16, batch=2, size=1.0):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, sum(lengths), 3, heads, width, generator=generator)
    qkv[:, :, :2] *= size
    return qkv.bfloat16()


@pytest.fixture(autouse=True)
def such_a_processor(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.parametrize("lengths", [(130,), (200, 50, 17), (17, 129, 128)])
@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("room", [1, 2**15, 2**22])
def test_it_is_as_near_to_the_truth_as_bfloat16_lets_it_be(lengths, size, room, monkeypatch):
    monkeypatch.setattr(products, "WEIGHTS_AT_A_TIME", room)
    qkv = drawn(lengths, size=size)
    truth = reference.attend(qkv.double(), lengths)
    found, plain = products.attend(qkv, lengths), reference.attend(qkv, lengths)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous()
    errors = [((each.double() - truth).norm() / truth.norm()).item() for each in (found, plain)]
    assert errors[0] <= 2 * errors[1]
    assert errors[0] < 2**-7


@pytest.mark.parametrize("width", [16, 32, 48, 64, 80])
def test_large_logits_lose_little(width):
    """Rounded as they are, logits of some hundreds would be wrong by one half."""
    qkv = drawn((150,), width=width, size=8.0)
    truth = reference.attend(qkv.double(), None)
    error = (products.attend(qkv, (150,)).double() - truth).norm() / truth.norm()
    assert error < 2**-7


def test_strides_do_not_matter():
    qkv = drawn((140, 130))
    turned = qkv.permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0)
    assert turned.stride() != qkv.stride()
    assert torch.equal(products.attend(turned, (140, 130)), products.attend(qkv, (140, 130)))


def test_an_image_is_alike_whatever_is_beside_it():
    qkv = drawn((131,), batch=3)
    assert torch.equal(products.attend(qkv, (131,))[1:2], products.attend(qkv[1:2], (131,)))


@pytest.mark.parametrize("autocast", [False, True])
def test_auto_takes_it_where_it_pays(autocast, monkeypatch):
    taken = []
    monkeypatch.setattr(products, "attend", lambda qkv, lengths: taken.append(lengths))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        attend(drawn((130,)))
        attend(drawn((130, 5)), (130, 5))
    assert taken == [(130,), (130, 5)]


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": torch.float32},
        {"dtype": torch.float16},
        {"requires_grad": True},
        {"lengths": (127, 3)},
        {"lengths": (130,), "impl": "torch"},
    ],
)
def test_auto_leaves_all_else_to_torch(other, monkeypatch):
    monkeypatch.setattr(products, "attend", lambda *_: pytest.fail("the products were taken"))
    lengths = other.get("lengths", (130,))
    qkv = drawn(lengths).to(other.get("dtype", torch.bfloat16))
    qkv.requires_grad_(other.get("requires_grad", False))
    assert torch.equal(attend(qkv, lengths, impl=other.get("impl", "auto")), reference.attend(qkv, lengths))


def test_auto_leaves_other_processors_to_torch(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not products.suits(drawn((130,)), (130,))


def test_it_breaks_no_graph():
    qkv = drawn((130,))
    compiled = torch.compile(attend, fullgraph=True, backend="eager")
    assert torch.equal(compiled(qkv), reference.attend(qkv, None))
