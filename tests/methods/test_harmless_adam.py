"""Harmless diversity under Adam: the projection in its metric, the reach, and the budget on one draw."""

import pytest
import torch

from studio.core.seeds import generator_from
from studio.methods.harmless_adam import (
    adam_correction,
    adam_moments,
    adjusted_reach,
    fade,
    slack_of,
    within_budget,
)


def draws(name, *shape):
    return torch.randn(*shape, generator=generator_from(5, name), dtype=torch.float64)


def case(n=10_000, d=6):
    return draws("first", n, d), draws("scale", n, d).exp(), draws("pushes", n, d)


@pytest.mark.parametrize("together", [False, True])
def test_no_correction_climbs_and_none_is_longer_than_its_reach(together):
    """F23 under Adam: <m, delta> <= slack for every draw, and |delta| <= reach * rate * |P m|."""
    first, scale, pushes = case()
    slack, reach = 0.01 * draws("slack", 10_000).abs(), torch.full((10_000,), 0.7, dtype=torch.float64)
    delta = adam_correction(first, scale, pushes, slack, reach, 0.02, together, cap=1e9)
    climbed, steps = (first * delta).sum(dim=1), 0.02 * first / scale
    if together:
        assert climbed.sum() <= slack.sum() + 1e-9
        assert delta.norm() <= 0.7 * steps.norm() + 1e-9
    else:
        assert (climbed <= slack + 1e-9).all()
        assert (delta.norm(dim=1) <= 0.7 * steps.norm(dim=1) + 1e-9).all()
    assert (pushes * delta).sum() < 0, "on the whole the energy falls"


def test_projecting_outside_the_metric_would_climb():
    """F23's negative control: the same projection made before Adam's rescaling climbs in over 5 % of the draws."""
    first, scale, pushes = case()
    none, reach = torch.zeros(10_000).double(), torch.ones(10_000).double()
    naive = adam_correction(first, torch.ones_like(scale), pushes, none, reach, 0.02, False, cap=1e9) / scale
    assert ((first * naive).sum(dim=1) > 1e-9).double().mean() > 0.05


def test_members_are_corrected_apart_unless_they_share_the_constraint():
    first, scale, pushes = case(5)
    pushes = -first + 0.1 * pushes
    other = first.clone()
    other[0] *= -3
    none, reach = torch.zeros(5).double(), torch.ones(5).double()
    apart = [adam_correction(m, scale, pushes, none, reach, 0.1, False) for m in (first, other)]
    shared = [adam_correction(m, scale, pushes, none, reach, 0.1, True) for m in (first, other)]
    assert torch.equal(apart[0][1:], apart[1][1:])
    assert not torch.allclose(shared[0][1:], shared[1][1:])


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_do_is_nothing_done(together, dtype):
    first, scale, pushes = (part.to(dtype) for part in case(4))
    none, one = torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)
    for reach, push, slope in ((none, pushes, first), (one, 0 * pushes, first), (one, pushes, 0 * first)):
        delta = adam_correction(slope, scale, push, none, reach, 0.1, together)
        assert delta.dtype == dtype and (delta == 0).all()


def test_moments_are_those_of_torch():
    """Three steps with these moments are three steps of torch's Adam."""
    start, target = draws("start", 3, 4), draws("target", 3, 4)
    leaf = start.clone().requires_grad_()
    adam = torch.optim.Adam([leaf], lr=0.1)
    ours, moments = start.clone(), (torch.zeros_like(start), torch.zeros_like(start))
    for step in (1, 2, 3):
        adam.zero_grad()
        (leaf - target).pow(4).sum().backward()
        adam.step()
        moments, first, scale = adam_moments(4 * (ours - target).pow(3), moments, step)
        ours = ours - 0.1 * first / scale
    assert torch.allclose(ours, leaf.detach(), atol=1e-9)


def test_the_budget_of_each_constraint():
    before, predicted = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([0.5, 1.0, 1.2])
    corrected = torch.tensor([0.7, 1.6, 1.2])
    assert within_budget(before, predicted, corrected, 0.5, "point").tolist() == [True, False, True]
    assert within_budget(before, predicted, corrected, 0.25, "max").tolist() == [True, False, True]
    assert within_budget(before, predicted, corrected, 0.5, "sum").tolist() == [False] * 3
    assert within_budget(before, predicted, torch.tensor([0.5, 1.4, 1.3]), 0.5, "sum").tolist() == [True] * 3


def test_the_reach_halves_for_offenders_and_grows_back():
    reach = adjusted_reach(torch.tensor([1.0, 0.4, 0.4]), torch.tensor([True, True, False]), 1.0)
    assert torch.allclose(reach, torch.tensor([1.0, 0.5, 0.2]))


def test_slack_and_fade():
    losses = torch.tensor([1.0, 3.0, 2.0])
    assert slack_of(losses, "max").tolist() == [2.0, 0.0, 1.0] and slack_of(losses, "point").tolist() == [0.0] * 3
    shares = [fade(step, 100) for step in range(100)]
    assert shares[:80] == [1.0] * 80 and shares[-1] == 0.0 and shares == sorted(shares, reverse=True)
    assert fade(0, 1) == 0.0
