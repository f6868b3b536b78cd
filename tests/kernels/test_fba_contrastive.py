import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.fba import fba_contrastive

TAU = 0.07


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def case(tokens=37, width=5, fg=4, bg=3):
    foreground = torch.rand(tokens, generator=torch.Generator().manual_seed(9)) < 0.4
    return (
        unit(tokens, width),
        unit(tokens, width, seed=1),
        foreground,
        unit(fg, width) / 2,
        unit(bg, width) / 3,
    )


def by_formula(q, k, foreground, centroids_fg, centroids_bg):
    """Section 5 token by token."""
    terms, assignment = {True: [], False: []}, []
    for q_i, k_i, in_fg in zip(q, k, foreground.tolist(), strict=True):
        bank = centroids_fg if in_fg else centroids_bg
        nearest = (k_i - bank).square().sum(dim=1).argmin()
        logits = F.normalize(bank, dim=1) @ q_i / TAU
        terms[in_fg].append(logits.logsumexp(dim=0) - logits[nearest])
        assignment.append(nearest)
    means = [torch.stack(terms[b]).mean() if terms[b] else q.sum() * 0 for b in (True, False)]
    return *means, torch.stack(assignment)


def test_golden(golden):
    g = {key: torch.from_numpy(value) for key, value in golden("fba_step").items()}
    q, foreground = g["q"].requires_grad_(), g["foreground"].bool()
    out = fba_contrastive(
        q, g["k"], foreground, g["centroids_fg_raw"], g["centroids_bg_raw"], g["temperature"].item()
    )
    (0.5 * (out.loss_fg + out.loss_bg)).backward()
    losses = torch.stack([out.loss_fg, out.loss_bg]).detach().double()
    torch.testing.assert_close(losses, g["loss"][1:3], rtol=0, atol=1e-5)
    assert torch.equal(out.assignment, g["assignment"])
    assert (out.count_fg, out.count_bg) == (g["n_foreground"], g["n_background"])
    torch.testing.assert_close(q.grad, g["grad_q"], rtol=0, atol=1e-5 * g["grad_q"].abs().max().item())


@given(tokens=st.integers(1, 23), width=st.integers(1, 7), fg=st.integers(1, 5), bg=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_equals_the_formula_with_its_gradient(tokens, width, fg, bg):
    q, k, *rest = case(tokens, width, fg, bg)
    q.requires_grad_()
    out = fba_contrastive(q, k, *rest, TAU)
    loss_fg, loss_bg, assignment = by_formula(q, k, *rest)
    torch.testing.assert_close((out.loss_fg, out.loss_bg), (loss_fg, loss_bg))
    assert torch.equal(out.assignment, assignment)
    (gradient,) = torch.autograd.grad(out.loss_fg + 2 * out.loss_bg, q)
    (expected,) = torch.autograd.grad(loss_fg + 2 * loss_bg, q)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("present", [True, False])
def test_a_bank_without_tokens_costs_nothing(present):
    q, k, foreground, *banks = case()
    q.requires_grad_()
    out = fba_contrastive(q, k, torch.full_like(foreground, present), *banks, TAU)
    absent, count = (out.loss_bg, out.count_bg) if present else (out.loss_fg, out.count_fg)
    assert absent == 0
    assert count == 0
    (gradient,) = torch.autograd.grad(absent, q)
    assert torch.equal(gradient, torch.zeros_like(q))


def test_the_widest_of_all_dtypes_counts():
    q, k, foreground, fg, bg = case()
    out = fba_contrastive(q.float(), k.float(), foreground, fg.float(), bg, TAU)
    assert out.loss_fg.dtype == out.loss_bg.dtype == torch.float64


def test_no_tokens_at_all():
    q, k, foreground, *banks = case()
    q = q[:0].requires_grad_()
    out = fba_contrastive(q, k[:0], foreground[:0], *banks, TAU)
    (out.loss_fg + out.loss_bg).backward()
    assert (out.loss_fg, out.loss_bg, out.count_fg, out.count_bg) == (0, 0, 0, 0)
    assert out.assignment.shape == (0,)
    assert out.assignment.dtype == torch.int64


def test_one_centroid_explains_everything():
    out = fba_contrastive(*case(fg=1, bg=1), TAU)
    assert (out.loss_fg, out.loss_bg) == (0, 0)
    assert not out.assignment.any()


def test_gradient_reaches_q_alone():
    q, k, foreground, *banks = case()
    leaves = [t.requires_grad_() for t in (q, k, *banks)]
    out = fba_contrastive(q, k, foreground, *banks, TAU)
    gradients = torch.autograd.grad(out.loss_fg + out.loss_bg, leaves, allow_unused=True)
    assert [g is not None for g in gradients] == [True, False, False, False]


def test_non_contiguous_inputs_change_nothing():
    q, k, foreground, *banks = case()
    strided = (q.T.contiguous().T, k.T.contiguous().T, foreground.repeat_interleave(2)[::2])
    torch.testing.assert_close(
        fba_contrastive(*strided, *banks, TAU), fba_contrastive(q, k, foreground, *banks, TAU)
    )


def test_autocast_does_not_coarsen_it():
    inputs = [t.float() if t.is_floating_point() else t for t in case()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fba_contrastive(*inputs, TAU)
    torch.testing.assert_close(inside, fba_contrastive(*inputs, TAU), rtol=0, atol=0)


def test_compiles_into_one_graph():
    q, k, *rest = case()
    q.requires_grad_()
    compiled = torch.compile(fba_contrastive, fullgraph=True, backend="aot_eager")
    out, expected = compiled(q, k, *rest, TAU), fba_contrastive(q, k, *rest, TAU)
    torch.testing.assert_close(out, expected)
    gradients = [torch.autograd.grad(o.loss_fg + o.loss_bg, q)[0] for o in (out, expected)]
    torch.testing.assert_close(*gradients)


def test_unfit_arguments_are_named():
    q, k, foreground, fg, bg = case()
    with pytest.raises(ValueError, match=r"\(37, 5\) and \(36, 5\)"):
        fba_contrastive(q, k[1:], foreground, fg, bg, TAU)
    with pytest.raises(ValueError, match=r"\(37, 5\) and \(37, 4\)"):
        fba_contrastive(q, k[:, 1:], foreground, fg, bg, TAU)
    with pytest.raises(ValueError, match=r"torch.uint8"):
        fba_contrastive(q, k, foreground.byte(), fg, bg, TAU)
    with pytest.raises(ValueError, match=r"centroids_bg.*\(0, 5\)"):
        fba_contrastive(q, k, foreground, fg, bg[:0], TAU)
    with pytest.raises(ValueError, match=r"centroids_fg.*\(4, 4\)"):
        fba_contrastive(q, k, foreground, fg[:, 1:], bg, TAU)
    with pytest.raises(ValueError, match="-1"):
        fba_contrastive(q, k, foreground, fg, bg, -1.0)
    with pytest.raises(ValueError, match=r"temperature.*0\.0"):
        fba_contrastive(q, k, foreground, fg, bg, 0.0)
    with pytest.raises(ValueError, match="positive number, got tensor"):
        fba_contrastive(q, k, foreground, fg, bg, torch.tensor(TAU, requires_grad=True))
    with pytest.raises(ValueError, match=r"k: expected floating point, got torch.int64"):
        fba_contrastive(q, k.long(), foreground, fg, bg, TAU)
