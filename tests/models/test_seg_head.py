import pytest
import torch
from torch.nn import LayerNorm

from benchmarks.published import component_tokens
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import Predictor, SegHead, SegHeadConfig

SMALL_HEAD = {"width": 24, "hidden": 16, "projection_dim": 8, "heads": 4}


@pytest.mark.parametrize(("kind", "prefix"), [("block", "transformer_block."), ("mlp", "mlp.")])
def test_matches_the_published_program(section, kind, prefix):
    state = section("seg_head", prefix)
    tokens, projected = state.pop("tokens"), state.pop("projected")
    head = SegHead(192, SegHeadConfig(kind, width=96, hidden=64, projection_dim=32, heads=12))
    head.load_state_dict(state)
    with torch.no_grad():
        fused = head.norm(head.multi_scale_fuser(section("seg_head", "z")[""]))
        ours = head.norm_2(head.seg_head(fused))
        torch.testing.assert_close(ours, tokens, atol=1e-4, rtol=0)
        torch.testing.assert_close(head.project(ours).mT, projected.flatten(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["block", "mlp"])
def test_fusing_the_levels_gives_the_tokens_of_the_concatenation(make_vit, kind):
    torch.manual_seed(0)
    backbone = PMViT(make_vit(), (4, 8, 14)).double()
    levels = backbone(torch.randn(2, 3, 19, 34, dtype=torch.float64))
    head = SegHead(4 * 12, SegHeadConfig(kind, **SMALL_HEAD)).double()
    fused = head.tokens(backbone.normalised(levels))
    torch.testing.assert_close(fused, component_tokens(head, backbone.concatenated(levels)))
    torch.testing.assert_close(head(backbone.normalised(levels)), head.project(fused))


@pytest.mark.parametrize("mixed", [False, True])
def test_projections_and_predictions_have_length_one(mixed):
    torch.manual_seed(0)
    head, predictor = SegHead(48, SegHeadConfig(**SMALL_HEAD)), Predictor(8, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        q = head.project(torch.randn(2, 6, 24))
        predicted = predictor(q)
    assert q.shape == predicted.shape == (2, 6, 8)
    torch.testing.assert_close(q.norm(dim=-1), torch.ones(2, 6))
    torch.testing.assert_close(predicted.norm(dim=-1), torch.ones(2, 6))


def test_starts_from_small_weights_and_no_biases():
    head = SegHead(300, SegHeadConfig(width=120))
    assert abs(head.multi_scale_fuser.weight.std().item() - 0.02) < 1e-3
    assert not any(p.any() for name, p in head.named_parameters() if name.endswith("bias"))
    assert (head.norm.weight == 1).all()


def test_predictor_has_the_published_keys():
    assert set(Predictor(8, 16).state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "conv"}, "'conv' is not known"),
        ({"width": 100}, "width 100 cannot be divided among 12 heads"),
        ({"hidden": 0}, "hidden is 0; it must be at least 1"),
    ],
)
def test_refuses_a_shape_that_cannot_be_built(wrong, message):
    with pytest.raises(ValueError, match=message):
        SegHeadConfig(**wrong)


@pytest.mark.parametrize("kind", ["block", "mlp"])
def test_norms_have_the_published_epsilon(kind):
    norms = [m for m in SegHead(48, SegHeadConfig(kind, **SMALL_HEAD)).modules() if isinstance(m, LayerNorm)]
    assert len(norms) == (4 if kind == "block" else 2)
    assert {norm.eps for norm in norms} == {1e-5}
