"""Many minimisations at once: each as if it were alone, none ever higher, and none evaluated once it is through."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from studio.methods.minimise import Minimiser, begun, descend

DRUG = "CC(C)Cc1ccc(C(C)C(=O)O)cc1"
# Steps below 1e-7 are too short to matter, so a slope of 1e-4 is what a stiffness of 1,000 can be brought to.
TIGHT = Minimiser(tolerance=1e-4, reach=10.0)


def draws(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Counted:
    """An objective that keeps the points of every call."""

    def __init__(self, loss):
        self.loss, self.calls = loss, []

    def __call__(self, points):
        self.calls.append(points.detach().clone())
        leaf = points.detach().clone().requires_grad_()
        losses = self.loss(leaf)
        (slopes,) = torch.autograd.grad(losses.nan_to_num(0.0, 0.0, 0.0).sum(), leaf)
        return losses.detach(), slopes

    @property
    def evaluations(self):
        return sum(map(len, self.calls))


def bowl(condition, centre):
    """Return sum_k c_k (x_k - centre_k)^2 / 2 with c from 1 to `condition`."""
    scales = torch.logspace(0, torch.log10(torch.tensor(float(condition))).item(), len(centre), dtype=torch.float64)
    return lambda x: 0.5 * (scales * (x - centre).square()).sum(dim=1), scales


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(dim=1)


def trail(loss, start, rounds, **how):
    """Yield where the minimisations stand after each round."""
    made = Counted(loss)
    now = begun(made, start)
    for _ in range(rounds):
        yield now
        now = descend(made, now, Minimiser(rounds=1, **how))


@pytest.mark.parametrize("condition", [1, 10, 1_000])
def test_a_bowl_ends_in_its_middle(condition):
    centre = draws(1, 6)
    loss, scales = bowl(condition, centre)
    start = begun(Counted(loss), 3 * draws(2, 9, 6))
    end = descend(Counted(loss), start, TIGHT)
    assert end.converged.all() and not start.converged.any()
    assert ((end.points - centre).abs() * scales <= 1.001e-4).all()
    assert (end.losses <= 1e-7).all() and (end.evaluations > 1).all()


def test_each_member_has_a_bowl_of_its_own():
    """Easy and hard ones together: each gets to its own middle, the easy ones with fewer evaluations."""
    scales = torch.tensor([1.0, 30.0, 3_000.0], dtype=torch.float64)
    stretch = torch.stack([scales[:, None] ** power for power in (0.0, 0.5, 1.0)], dim=1)[..., 0]
    middle = draws(4, 3, 3)

    def loss(x):
        rows = [int((x[i, 3] - 7).round()) for i in range(len(x))]
        return 0.5 * (stretch[rows] * (x[:, :3] - middle[rows]).square()).sum(dim=1)

    which = torch.tensor([[7.0], [8.0], [9.0]], dtype=torch.float64)
    end = descend(Counted(loss), begun(Counted(loss), torch.cat([draws(5, 3, 3), which], dim=1)), TIGHT)
    assert end.converged.all() and torch.equal(end.points[:, 3:], which)
    assert ((end.points[:, :3] - middle).abs() * stretch <= 1.001e-4).all()
    assert end.evaluations.argmin() == 0 and end.evaluations[0] < end.evaluations.max()


def test_rosenbrocks_valley_is_followed_to_its_end():
    start = begun(Counted(rosenbrock), draws(3, 12, 2))
    end = descend(Counted(rosenbrock), start, Minimiser(tolerance=1e-5, reach=1.0))
    assert end.converged.all() and (end.points - 1).abs().max() <= 1e-4


def test_the_wanted_slope_is_reached_and_not_overdone():
    loss, _ = bowl(100, torch.zeros(4, dtype=torch.float64))
    rough, fine = (
        descend(Counted(loss), begun(Counted(loss), draws(1, 5, 4)), Minimiser(tolerance=t)) for t in (1.0, 1e-5)
    )
    assert rough.converged.all() and (rough.slopes.abs() <= 1).all() and (fine.slopes.abs() <= 1e-5).all()
    assert rough.evaluations.sum() < fine.evaluations.sum()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 5.0]), reach=st.sampled_from([0.05, 0.3, 5.0]))
def test_losses_never_rise_and_steps_never_reach_farther(seed, scale, reach):
    def rugged(x):
        return rosenbrock(x) + 20 * (7 * x).sin().sum(dim=1)

    before = None
    for now in trail(rugged, scale * draws(seed, 4, 3), 12, reach=reach):
        losses, slopes = Counted(rugged)(now.points)
        assert torch.equal(losses, now.losses) and torch.equal(slopes, now.slopes)
        if before is not None:
            assert (now.losses <= before.losses).all()
            assert (now.points - before.points).abs().max() <= reach * (1 + 1e-12)
        before = now


def test_nobody_pays_for_the_last_one():
    """Nine members at their minimum and one far away: after the first call only the one is evaluated."""
    loss, _ = bowl(1_000, torch.zeros(3, dtype=torch.float64))
    points = torch.zeros(10, 3, dtype=torch.float64)
    points[4] = draws(1, 3)
    made = Counted(loss)
    end = descend(made, begun(made, points), TIGHT)
    assert len(made.calls[0]) == 10 and all(len(call) == 1 for call in made.calls[1:]) and len(made.calls) > 5
    assert end.converged.all() and end.evaluations[4] == len(made.calls)
    assert (end.evaluations[[0, 1, 2, 3, 5, 6, 7, 8, 9]] == 1).all()


def test_members_leave_when_they_are_through():
    """Batches only shrink, and all of them cost hardly more than each member alone: a fifth may wait, no more."""
    loss, _ = bowl(3_000, torch.zeros(5, dtype=torch.float64))
    starts = draws(1, 40, 5) * torch.logspace(-7, 1, 40, dtype=torch.float64)[:, None]
    made = Counted(loss)
    end = descend(made, begun(made, starts), TIGHT)
    sizes = [len(call) for call in made.calls]
    assert end.converged.all() and sizes[0] == 40 and sizes == sorted(sizes, reverse=True) and sizes[-1] <= 4
    assert end.evaluations.sum() == made.evaluations, "the count is of what was really evaluated"
    alone = torch.cat([descend(Counted(loss), begun(Counted(loss), row[None]), TIGHT).evaluations for row in starts])
    assert (end.evaluations >= alone).all() and end.evaluations.sum() <= 1.25 * alone.sum()


def test_all_at_rest_costs_nothing():
    """No evaluation and no curvature: a curvature of no points need not even have a shape."""

    def curvature(points):
        raise AssertionError("nothing is left to precondition")

    loss, _ = bowl(10, torch.zeros(3, dtype=torch.float64))
    made = Counted(loss)
    start = begun(made, torch.zeros(2, 3, dtype=torch.float64))
    end = descend(made, start, TIGHT, curvature)
    assert len(made.calls) == 1 and end.converged.all() and torch.equal(end.points, start.points)
    assert (end.evaluations == 1).all()


def test_the_right_curvature_needs_a_handful():
    """A bowl a million times stiffer one way: a few evaluations with its curvature, a crowd without."""
    loss, scales = bowl(1e6, torch.zeros(8, dtype=torch.float64))
    turn, _ = torch.linalg.qr(draws(3, 8, 8))
    turned = lambda x: loss(x @ turn)  # noqa: E731
    whole = turn @ torch.diag(scales) @ turn.T
    counts = []
    for known in (None, lambda points: whole.expand(len(points), 8, 8)):
        made = Counted(turned)
        end = descend(made, begun(made, draws(2, 5, 8)), Minimiser(tolerance=1e-2, reach=10.0), known)
        assert end.converged.all()
        counts.append(end.evaluations.max().item())
    assert counts[1] <= 6 and counts[0] >= 5 * counts[1], counts


def test_the_curvature_is_taken_anew_every_few_rounds():
    asked = []

    def curvature(points):
        asked.append(len(made.calls))
        return torch.eye(2, dtype=torch.float64).expand(len(points), 2, 2)

    made = Counted(rosenbrock)
    start = begun(made, torch.tensor([[-1.2, 1.0]], dtype=torch.float64))
    descend(made, start, Minimiser(rounds=20, tolerance=1e-9, refresh=7), curvature)
    assert asked == [1, 8, 15]


def test_many_members_are_preconditioned_in_shares(monkeypatch):
    """Curvatures take room: no more at once than the bound, and each member ends where it would among fewer."""
    loss, scales = bowl(100, torch.zeros(4, dtype=torch.float64))
    sizes = []

    def curvature(points):
        sizes.append(len(points))
        return torch.diag(scales).expand(len(points), 4, 4)

    start = begun(Counted(loss), draws(1, 7, 4))
    whole = descend(Counted(loss), start, TIGHT, curvature)
    monkeypatch.setattr("studio.methods.minimise.AT_ONCE", 3 * 16)
    sizes.clear()
    shares = descend(Counted(loss), start, TIGHT, curvature)
    assert max(sizes) <= 3 and shares.converged.all() and (shares.evaluations > 1).all()
    torch.testing.assert_close(shares.points, whole.points, rtol=0, atol=2e-4)


def test_a_curvature_beyond_single_precision_stops_nobody():
    """One member's curvature cannot be factored: it goes down without, and the others do not notice."""
    loss, scales = bowl(10, torch.zeros(3, dtype=torch.float64))
    bad = torch.tensor([[1.0, 1e9, 0.0], [1e9, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)

    def curvature(points):
        found = torch.diag(scales).repeat(len(points), 1, 1)
        found[points[:, 0] > 5] = bad
        return found

    points = draws(1, 3, 3)
    points[1, 0] = 9.0
    end = descend(Counted(loss), begun(Counted(loss), points), TIGHT, curvature)
    assert end.converged.all() and end.points.abs().max() <= 1e-4


def test_rounds_are_the_most_and_can_be_gone_on_from():
    made = Counted(rosenbrock)
    start = begun(made, draws(6, 3, 4))
    now = descend(made, start, Minimiser(rounds=5, tolerance=1e-4))
    assert not now.converged.any() and (now.evaluations == 6).all() and made.evaluations == 18
    for _ in range(60):
        now = descend(made, now, Minimiser(rounds=30, tolerance=1e-4, reach=1.0))
    assert now.converged.all() and (now.slopes.abs() <= 1e-4).all()


def test_no_rounds_is_where_it_began():
    start = begun(Counted(rosenbrock), draws(6, 3, 4))
    end = descend(Counted(rosenbrock), start, Minimiser(rounds=0))
    assert torch.equal(end.points, start.points) and torch.equal(end.evaluations, start.evaluations)


def test_arguments_are_not_modified():
    points = draws(7, 4, 2)
    kept = points.clone()
    start = begun(Counted(rosenbrock), points)
    copies = {name: value.clone() for name, value in vars(start).items()}
    end = descend(Counted(rosenbrock), start, TIGHT)
    assert torch.equal(points, kept) and not torch.equal(end.points, start.points)
    assert all(torch.equal(copies[name], getattr(start, name)) for name in copies)


@pytest.mark.parametrize("hole", [float("nan"), float("inf")])
def test_a_trial_without_a_loss_is_backed_away_from(hole):
    """Beyond x = 1 there is no loss at all: who jumps there comes back, and goes on to the minimum before the edge."""

    def loss(x):
        return torch.where(x[:, 0] < 1, 5 * (x[:, 0] - 0.5).square() + x[:, 1].square(), hole)

    points = torch.tensor([[-3.0, 0.5], [0.4, 2.0]], dtype=torch.float64)
    made = Counted(loss)
    end = descend(made, begun(made, points), TIGHT)
    assert any((call[:, 0] >= 1).any() for call in made.calls), "the first trial jumps over the edge"
    assert end.converged.all() and (end.points - torch.tensor([0.5, 0.0])).abs().max() <= 1e-4


def test_the_edge_of_a_loss_is_never_crossed():
    """The slope leads over the edge to the last: members stop before it, lower than they began."""

    def loss(x):
        return torch.where(x[:, 0] < 1, (x[:, 0] - 1.5).square() + x[:, 1].square(), float("nan"))

    start = begun(Counted(loss), torch.tensor([[0.9, 0.5], [-3.0, 2.0]], dtype=torch.float64))
    end = descend(Counted(loss), start, Minimiser(rounds=80, reach=5.0))
    assert (end.losses < start.losses).all() and (end.points[:, 0] < 1).all() and (end.points[:, 0] > 0.9).all()


def test_a_step_too_short_to_matter_ends_without_rest():
    """At a kink no slope is small: the member stops long before its rounds are over, and says that it does not rest."""
    made = Counted(lambda x: x.abs().sum(dim=1))
    end = descend(made, begun(made, torch.full((1, 1), 0.7, dtype=torch.float64)), Minimiser(rounds=5_000))
    assert not end.converged.any() and end.evaluations.max() < 200 and end.losses.max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 4)])
def test_one_member_and_one_dimension(shape):
    loss, _ = bowl(1, torch.full(shape[1:], 2.0, dtype=torch.float64))
    for known in (None, lambda points: torch.eye(shape[1], dtype=torch.float64).expand(len(points), -1, -1)):
        end = descend(Counted(loss), begun(Counted(loss), draws(1, *shape)), TIGHT, known)
        assert end.converged.all() and (end.points - 2).abs().max() <= 1e-4


def test_single_precision_comes_to_rest_too():
    loss = lambda x: (x.square() * torch.tensor([1.0, 50.0])).sum(dim=1)  # noqa: E731
    end = descend(Counted(loss), begun(Counted(loss), draws(1, 6, 2).float()), Minimiser(tolerance=1e-3))
    assert end.points.dtype == torch.float32 and end.converged.all()


def test_conformers_come_to_rest_where_rdkit_says():
    """From the same geometries most end at the same energy to 1e-3 kcal/mol, and none above where it started."""
    from studio.problems import chemistry
    from studio.problems.mmff import MMFF
    from studio.problems.mmff_terms import mmff_terms

    found = chemistry.read_molecule(DRUG)
    positions = chemistry.embed(found, 10, seed=3)
    field = MMFF((mmff_terms(chemistry.rdkit_mol(found)),))

    def objective(points):
        energies, slopes = field.with_gradients(points.view(len(points), -1, 3))
        return energies[:, 0], slopes.view(points.shape)

    start = begun(objective, torch.from_numpy(positions).reshape(10, -1))
    end = descend(objective, start, Minimiser(), lambda points: field.curvature(points.view(len(points), -1, 3)))
    _, theirs, rested = chemistry.minimise(found, positions, "MMFF94s")
    assert end.converged.all() and rested.all() and (end.losses < start.losses).all()
    near = (end.losses - torch.from_numpy(theirs)).abs() <= 1e-3
    assert near.sum() >= 7, (end.losses - torch.from_numpy(theirs)).tolist()
    assert end.evaluations.max() <= 150
    alone = descend(objective, start, Minimiser(rounds=100))
    assert not alone.converged.all(), "the curvature is what makes it short"
