"""Harmless diversity: the algebra, the budget on every step, and what it reaches on losses with known optima."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from studio.core.runs import last, record
from studio.core.seeds import generator_from
from studio.methods.diversity import ENERGIES, distinct, energy, nearest_gap, riesz
from studio.methods.harmless import Harmless, harmless, harmless_direction, multipliers
from studio.problems.planes import plane

HARMLESS = ("sum", "max", "point")


def cloud(name, seed, n=20):
    """A tight cluster of standard deviation 0.15 away from the optimum set."""
    centre = torch.tensor(plane(name).cluster, dtype=torch.float64)
    return centre + 0.15 * torch.randn(n, 2, generator=generator_from(seed, "cloud"), dtype=torch.float64)


def final(name, method, seed, **settings):
    return last(harmless(plane(name), cloud(name, seed), Harmless(method=method, **settings)))


def draws(seed, *shape):
    return torch.randn(*shape, generator=generator_from(seed, "algebra"), dtype=torch.float64)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_constraint_holds_for_ten_thousand_draws(together, seed):
    """F16: <a, delta> <= b, and no multiplier where the push already agrees."""
    slopes, pushes = draws(seed, 10_000, 6), draws(seed + 10, 10_000, 6)
    slack, eta = draws(seed + 20, 10_000).abs() * 0.1, torch.full((10_000,), 0.3, dtype=torch.float64)
    delta = harmless_direction(slopes, pushes, slack, eta, together, cap=1e9)
    spent = (slopes * delta).sum(dim=1)
    if together:
        assert spent.sum() <= slack.sum() + 1e-9
    else:
        assert (spent <= slack + 1e-9).all()
        agreeing = (slopes * pushes).sum(dim=1) >= 0
        assert (multipliers(slopes, pushes, slack, eta)[agreeing] == 0).all() and agreeing.any()


@pytest.mark.parametrize("seed", range(5))
def test_the_direction_solves_its_quadratic_program(seed):
    """F16: the closed form equals a solver's answer of min <g, d> + |d|^2 / (2 eta) subject to <a, d> <= b."""
    a, g = draws(seed, 1, 4), draws(seed + 50, 1, 4)
    b, eta = 0.05, 0.4
    ours = harmless_direction(a, g, torch.tensor([b]).double(), torch.tensor([eta]).double(), False).flatten().numpy()
    low, slope = g.flatten().numpy(), a.flatten().numpy()
    answer = minimize(
        lambda d: low @ d + d @ d / (2 * eta),
        np.zeros(4),
        jac=lambda d: low + d / eta,
        constraints={"type": "ineq", "fun": lambda d: b - slope @ d, "jac": lambda d: -slope},
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 500},
    )
    assert np.allclose(ours, answer.x, atol=1e-7)


def test_max_decouples_and_sum_couples():
    """F16: changing one member's slope changes only its own correction, unless all share one multiplier."""
    a, g = draws(1, 5, 3), -draws(1, 5, 3)
    slack, eta = torch.zeros(5).double(), torch.ones(5).double()
    changed = a.clone()
    changed[0] *= 3
    apart = [harmless_direction(x, g, slack, eta, False) for x in (a, changed)]
    together = [harmless_direction(x, g, slack, eta, True) for x in (a, changed)]
    assert torch.equal(apart[0][1:], apart[1][1:])
    assert not torch.allclose(together[0][1:], together[1][1:])


def test_the_metric_is_projected_in_and_the_naive_order_is_not():
    """F23: <a, P(g + lambda a)> >= 0 always; projecting first and rescaling after breaks it in over 5 % of draws."""
    a, g = draws(2, 10_000, 6), draws(3, 10_000, 6)
    metric = draws(4, 10_000, 6).exp()
    slack, eta = torch.zeros(10_000).double(), torch.ones(10_000).double()
    ours = -harmless_direction(a, g, slack, eta, False, metric, cap=1e9)
    naive = -metric * harmless_direction(a, g, slack, eta, False, cap=1e9)
    assert ((a * ours).sum(dim=1) >= -1e-9).all()
    assert ((a * naive).sum(dim=1) < -1e-9).double().mean() > 0.05


@pytest.mark.parametrize("name", ["ring", "curve", "himmelblau"])
@pytest.mark.parametrize("method", HARMLESS)
@pytest.mark.parametrize("chosen", ["riesz1", "variance"])
def test_the_budget_is_kept_on_every_step(name, method, chosen):
    """F17: F after a step is at most F - (1 - kappa)(F - F predicted), for any energy."""
    config = Harmless(method=method, energy=chosen, steps=120, rate=0.05)
    snapshots = record(harmless(plane(name), cloud(name, 0), config))
    for before, after in pairwise(snapshots):
        value = after.losses.sum()[None] if method == "sum" else after.losses
        assert (value <= after.bound + 1e-15).all()
        old = {"sum": before.losses.sum()[None], "max": before.losses.max().expand(20), "point": before.losses}[method]
        assert (after.bound <= old + 1e-15).all()
    assert len(snapshots) == 121


def test_the_ring_is_filled():
    """F18: 20 points, 300 steps: mean f <= 1e-12, nearest gap >= 0.30 of the ideal 0.3129; plain stays crowded."""
    found = [final("ring", "max", seed, rate=0.02) for seed in range(3)]
    assert all(run.losses.mean() <= 1e-12 and run.gaps[-1] >= 0.30 for run in found)
    plain = [final("ring", "plain", seed, rate=0.02) for seed in range(3)]
    assert all(run.gaps[-1] < 0.1 for run in plain)


def test_the_curve_is_filled():
    """F19, on this studio's curve: F_sum and F_max spread over it at next to no loss; plain does not."""
    for seed in range(3):
        together = final("curve", "sum", seed, rate=0.02)
        assert together.losses.mean() <= 1e-6 and riesz(together.points) <= 3.2
        worst = final("curve", "max", seed, rate=0.05)
        assert worst.losses.max() <= 2e-4 and riesz(worst.points) <= 2.1
        assert riesz(final("curve", "plain", seed, rate=0.05).points) > 10


def test_variance_piles_up():
    """F20: the variance energy leaves neighbours together although its mean distance is large."""
    for seed in range(3):
        foil = final("curve", "max", seed, rate=0.05, energy="variance")
        even = final("curve", "max", seed, rate=0.05)
        assert foil.gaps[-1] < 0.03 < 0.15 < even.gaps[-1]
        assert torch.pdist(foil.points).mean() > 0.5


def test_himmelblau_minima():
    """F21: F_max with kappa 0.9 finds at least 2.5 of the 4 minima on average, at max f <= 1e-10; plain finds fewer."""
    minima = plane("himmelblau").optimum
    found, plain = [], []
    for seed in range(4):
        run = final("himmelblau", "max", seed, rate=0.5, kappa=0.9, steps=400)
        assert run.losses.max() <= 1e-10
        found.append(distinct(run.points, minima, 0.1))
        plain.append(distinct(final("himmelblau", "plain", seed, rate=0.5).points, minima, 0.1))
    assert np.mean(found) >= 2.5 > np.mean(plain)


def test_a_falling_ceiling_crosses_barriers():
    """On the rugged bowl the best of the population ends lower than without, and every step keeps its bound."""
    best: dict[str, list[float]] = {"plain": [], "max": [], "ceiling": []}
    for method, found in best.items():
        for seed in range(4):
            points = plane("rugged").start(20, generator_from(seed, "start"))
            snapshots = record(harmless(plane("rugged"), points, Harmless(method=method, rate=0.05, width=1.0)))
            found.append(snapshots[-1].losses.min().item())
            if method == "ceiling":
                assert all((after.losses <= after.bound + 1e-15).all() for after in snapshots[1:])
    assert np.mean(best["ceiling"]) < 0.5 * np.mean(best["plain"]) < np.mean(best["max"])


@pytest.mark.parametrize("method", [*HARMLESS, "ceiling", "plain", "linear", "barrier", "svgd"])
def test_ten_steps_are_five_and_five(method):
    config = Harmless(method=method, steps=10)
    snapshots = record(harmless(plane("curve"), cloud("curve", 1), config))
    resumed = last(harmless(plane("curve"), cloud("curve", 1), config, start=snapshots[5]))
    assert torch.equal(resumed.points, snapshots[10].points) and resumed.outcome == snapshots[10].outcome


@pytest.mark.parametrize("name", ENERGIES)
def test_energies_have_true_gradients_and_no_order(name):
    points = draws(9, 6, 3).requires_grad_()
    frozen = {"riesz0": 0, "riesz1": 1, "riesz2": 2}.get(name)
    measure = (lambda u: riesz(u, frozen, epsilon=0.0)) if frozen is not None else energy(name)
    if name not in ("determinant", "distance"):
        assert torch.autograd.gradcheck(measure, points)
    assert torch.allclose(measure(points), measure(points[torch.tensor([3, 1, 0, 5, 4, 2])]))
    together = torch.cat((points[:3], points[:3] + 1e-3)).detach()
    assert energy(name)(together) > energy(name)(points.detach()) or name in ("variance", "distance")


def test_energies_stay_finite_where_members_coincide():
    for name in ENERGIES:
        points = torch.zeros(4, 2, dtype=torch.float64).index_fill(0, torch.tensor([0]), 1.0).requires_grad_()
        (slope,) = torch.autograd.grad(energy(name)(points), points)
        assert torch.isfinite(slope).all()


def test_measures():
    square = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).double()
    assert nearest_gap(square).item() == pytest.approx(1.0) and nearest_gap(square[:1]) == 0
    assert distinct(square[:2], square, 0.1) == 2
    with pytest.raises(ValueError, match="riesz0, riesz1"):
        energy("entropy")
