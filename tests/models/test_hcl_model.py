import pytest
import torch

from hcl.models.hcl import HCL
from hcl.models.pm_vit import PMViT
from hcl.models.seg_head import SegHeadConfig

HEAD = SegHeadConfig(width=24, hidden=16, projection_dim=8, heads=4)


@pytest.fixture
def model(make_vit) -> HCL:
    torch.manual_seed(0)
    return HCL(PMViT(make_vit(), (4, 8, 14)), HEAD)


def test_takes_the_weights_of_the_published_training(make_vit, section):
    backbone = PMViT(make_vit(width=48), (4, 8, 14))
    model = HCL(backbone, SegHeadConfig(width=96, hidden=64, projection_dim=32))
    for stage in ("init", "final"):
        model.online.seg_head.load_state_dict(section("train_steps", f"{stage}.online_seg_head."))
        model.online.predictor.load_state_dict(section("train_steps", f"{stage}.predictor."))
    model.momentum.load_state_dict(section("train_steps", "final.momentum_seg_head."))


def test_momentum_head_starts_as_a_copy_without_gradient(model):
    for ours, online in zip(model.momentum.parameters(), model.online.seg_head.parameters(), strict=True):
        assert torch.equal(ours, online)
        assert ours.data_ptr() != online.data_ptr()
        assert not ours.requires_grad


def test_update_momentum_is_the_moving_average(model):
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = {name: p.clone() for name, p in model.momentum.named_parameters()}
    model.update_momentum(0.9)
    online = dict(model.online.seg_head.named_parameters())
    for name, p in model.momentum.named_parameters():
        torch.testing.assert_close(p, 0.9 * before[name] + 0.1 * online[name].detach())


@pytest.mark.parametrize("hold", [False, True])
def test_update_momentum_moves_nothing_where_it_is_held(model, hold):
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter.add_(1)
    before = [p.clone() for p in model.momentum.parameters()]
    model.update_momentum(0.9, hold=torch.tensor(hold))
    for p, old in zip(model.momentum.parameters(), before, strict=True):
        torch.testing.assert_close(p, old if hold else old + 0.1, rtol=0, atol=0 if hold else 1e-6)


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_update_momentum_refuses_what_is_no_share(model, momentum):
    with pytest.raises(ValueError, match=f"momentum is {momentum}"):
        model.update_momentum(momentum)


def test_gradient_reaches_the_whole_online_branch_and_nothing_else(model):
    levels = model.backbone.normalised(model.backbone(torch.randn(2, 3, 16, 20)))
    q, predicted = model.online(levels)
    assert q.shape == predicted.shape == (2, 20, 8)
    (q + predicted)[..., 0].sum().backward()
    assert all(p.grad is not None for p in model.online.parameters())
    assert all(p.grad is None for p in [*model.backbone.parameters(), *model.momentum.parameters()])


def test_the_momentum_head_stays_without_gradient_when_it_moves(model):
    for _ in range(2):
        model.update_momentum(0.9)
    assert not any(p.requires_grad for p in model.momentum.parameters())


def test_the_predictors_gradient_reaches_the_online_head(model):
    levels = model.backbone.normalised(model.backbone(torch.randn(2, 3, 16, 20)))
    _, predicted = model.online(levels)
    predicted[..., 0].sum().backward()
    assert all(p.grad is not None for p in model.online.seg_head.parameters())
