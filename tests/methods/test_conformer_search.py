"""The search for conformers: phases in their order, ceilings that hold, snapshots to go on from, and shapes found."""

import gc
import weakref
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise

import pytest
import torch

from studio.core.molecules import MolecularProblem, Skeleton
from studio.core.runs import last, record
from studio.core.snapshots import MAX_BYTES, nbytes
from studio.files.frames import snapshot_bytes, snapshot_from
from studio.methods import conformer_search as search
from studio.methods.conformer_search import Search, Shapes, conformer_search
from studio.problems.chemist import Chemist
from studio.problems.molecule_shapes import molecule_shapes

BARRIER = 2.0
METHODS = ("ceiling", "max", "sum", "point", "linear")
TOLERANCE = 1e-3


class Clock:
    """A toy molecule of `hands`: each atom is bound to a circle of its own, and has three wells on it.

    The energy of a hand at radius r, angle w and height z is 50 (r - 1)^2 + 50 z^2 + 2 (1 + cos 3w): minima at 60, 180
    and 300 degrees, all of them 0. `reach` is how many geometries can be embedded.
    """

    def __init__(self, hands=3, smooth=True, reach=1_000, turning=None):
        self.hands, self.smooth, self.reach = hands, smooth, reach
        self.turning = (hands if turning is None else turning) if smooth else 0
        self.asked, self.strides, self.fixed = [], [], 0
        none = torch.zeros(0, dtype=torch.long)
        self.skeleton = Skeleton(
            "CLOCK", "", "toy", (), torch.full((hands,), 6), torch.zeros(hands, dtype=torch.long), none.view(0, 2),
            torch.zeros(0, dtype=torch.float64), torch.arange(hands),
        )  # fmt: skip

    def energies(self, geometries):
        radius, angle = geometries[..., :2].norm(dim=2), torch.atan2(geometries[..., 1], geometries[..., 0])
        bound = 50 * (radius - 1).square() + 50 * geometries[..., 2].square()
        return (bound + BARRIER * (1 + (3 * angle).cos())).sum(dim=1)

    def embedded(self, first, count):
        self.asked.append((first, count))
        made = [self._one(index) for index in range(first, min(first + count, self.reach))]
        return torch.stack(made) if made else torch.zeros(0, self.hands, 3, dtype=torch.float64)

    def _one(self, index):
        """Return a geometry near the wells at 180 degrees."""
        noise = torch.randn(2, self.hands, generator=torch.Generator().manual_seed(index), dtype=torch.float64)
        angle, radius = torch.pi + 0.2 * noise[0], 1 + 0.05 * noise[1]
        return torch.stack([radius * angle.cos(), radius * angle.sin(), 0.05 * noise[1]], dim=1)

    def objective(self, points):
        assert self.smooth
        leaf = points.detach().clone().requires_grad_()
        losses = self.energies(leaf.view(len(leaf), -1, 3))
        return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]

    def curvature(self, points):
        return 20 * torch.eye(points.shape[1], dtype=points.dtype).expand(len(points), -1, -1)

    def relaxed(self, geometries, rounds):
        assert not self.smooth
        self.strides.append(rounds)
        points = geometries.reshape(len(geometries), -1)
        for _ in range(rounds):
            leaf = points.clone().requires_grad_()
            losses = self.energies(leaf.view(geometries.shape))
            (slopes,) = torch.autograd.grad(losses.sum(), leaf)
            points = points - 0.008 * slopes
        found = points.view(geometries.shape)
        return found, self.energies(found), slopes.abs().amax(dim=1) <= TOLERANCE

    def turned(self, geometries, turns):
        cos, sin = turns.cos(), turns.sin()
        x, y, z = geometries.unbind(dim=2)
        return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=2)

    def turns(self, geometries):
        return Hands(self, geometries)

    def unlike(self, geometries):
        return (geometries[:, None] - geometries[None]).square().sum(dim=3).mean(dim=2).sqrt()


class Hands:
    """The energy of a clock over the turns of its hands."""

    def __init__(self, clock, geometry):
        self.clock, self.geometry = clock, geometry

    def start(self, n, generator):
        return self.geometry.new_zeros(n, self.clock.turning)

    def loss(self, points):
        return self.clock.energies(self.clock.turned(self.geometry, points))

    def features(self, points):
        angles = torch.atan2(self.geometry[..., 1], self.geometry[..., 0]) + points
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def settings(**changes):
    return replace(Search(members=8, steps=12, width=9.0, rounds=300, tolerance=TOLERANCE), **changes)


@cache
def recorded(start="few", method="ceiling", seed=7):
    return record(conformer_search(Clock(), settings(start=start, method=method), seed))


def phases(snapshots):
    return [phase for phase, _ in groupby(snapshot.phase for snapshot in snapshots)]


def spreading(snapshots):
    """Return the snapshots after a step of spreading."""
    return [one for before, one in pairwise(snapshots) if before.phase == "spreading"]


def distinct(end, alike=0.3):
    kept = []
    for index in range(len(end.energies)):
        if all(end.distances[index, other] >= alike for other in kept):
            kept.append(index)
    return len(kept)


def test_the_toy_is_a_molecular_problem():
    assert isinstance(Clock(), MolecularProblem)
    best = Clock()._one(0) * 0 + torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)
    assert Clock().energies(best[None]).abs().max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", search.STARTS)
def test_phases_come_in_order(start, method):
    snapshots = recorded(start, method)
    assert phases(snapshots) == ["relaxing", "spreading", "settling", "done"]
    assert len(spreading(snapshots)) == 12
    steps = [snapshot.step for snapshot in snapshots]
    assert steps == sorted(steps) and steps[-1] == snapshots[-1].total and all(s.step < s.total for s in snapshots[:-1])
    assert snapshots[-1].outcome and not any(snapshot.outcome for snapshot in snapshots[:-1])
    for snapshot in snapshots:
        assert torch.equal(snapshot.energies, Clock().energies(snapshot.positions)), snapshot.phase
        assert snapshot.lowest[-1] == snapshot.energies.min()
        assert torch.isclose(snapshot.mean[-1], snapshot.energies.mean(), rtol=1e-12)


def test_plain_never_spreads():
    for start in search.STARTS:
        snapshots = recorded(start, "plain")
        assert phases(snapshots) == ["relaxing", "done"] and all(s.spread is None for s in snapshots)
        assert len(snapshots[-1].positions) == 8


def test_what_does_not_turn_is_only_minimised():
    made = Clock(turning=0)
    snapshots = record(conformer_search(made, settings(), 7))
    assert phases(snapshots) == ["relaxing", "done"] and len(snapshots[-1].positions) == 8
    assert sum(count for _, count in made.asked) == 8, "each is embedded, as nothing can be turned"


def test_geometries_are_embedded_a_few_at_a_time():
    made = Clock()
    snapshots = record(conformer_search(made, settings(members=21, start="all", steps=2), 7))
    assert made.asked == [(0, 8), (8, 8), (16, 5)]
    assert [len(s.positions) for s in snapshots[:3]] == [8, 16, 21]
    assert phases(snapshots) == ["embedding", "relaxing", "spreading", "settling", "done"]
    assert torch.equal(snapshots[2].positions, Clock().embedded(0, 21))


def test_few_keeps_its_seeds():
    """A quarter is embedded and minimised; while the others spread from those minima, these stay where they are."""
    snapshots = recorded("few", "ceiling")
    assert len(snapshots[0].positions) == 2
    minima = next(s for s in snapshots if s.phase == "spreading")
    for snapshot in spreading(snapshots):
        assert snapshot.seeds == 2 and torch.equal(snapshot.positions[:2], minima.positions)
        assert torch.equal(snapshot.base, minima.positions[[0, 1, 0, 1, 0, 1]])
        assert torch.equal(snapshot.positions[2:], Clock().turned(snapshot.base, snapshot.spread.points))
    assert len(snapshots[-1].positions) == 8


def test_few_embeds_more_where_rings_turn():
    """Embedding alone turns the bonds of large rings: their share of all that turn is embedded, at least a quarter."""
    for fixed, embedded in ((0, 2), (1, 2), (3, 4), (9, 6)):
        made = Clock()
        made.fixed = fixed
        end = last(conformer_search(made, settings(steps=2), 7))
        assert sum(count for _, count in made.asked) == embedded == end.seeds and len(end.positions) == 8


def test_one_begins_as_shaken_copies():
    first, base = recorded("one")[0].positions, Clock()._one(0)
    shake = first - base
    assert len(first) == 8 and 0.05 < shake.std() < 0.15
    assert len({row.numpy().tobytes() for row in first}) == 8
    other = recorded("one", seed=8)[0].positions - base
    assert not torch.equal(shake, other)


@pytest.mark.parametrize("method", ["ceiling", "max", "point", "sum"])
@pytest.mark.parametrize("start", search.STARTS)
def test_no_member_is_above_its_bound(start, method):
    """F17: after every step of spreading the losses keep the budget or the ceiling."""
    found = spreading(recorded(start, method))
    assert len(found) == 12
    for snapshot in found:
        losses, bound = snapshot.spread.losses, snapshot.spread.bound
        assert ((losses.sum() if method == "sum" else losses) <= bound + 1e-9).all()
        assert torch.equal(losses, snapshot.energies[snapshot.seeds :])
    if method == "ceiling":
        first, final = found[0], found[-1]
        assert first.spread.bound.max() > 4 and (final.spread.bound <= first.spread.bound.max()).all()
        assert max(s.spread.losses.max().item() for s in found) > BARRIER, "somebody is on a barrier"


def test_the_ceiling_crosses_barriers_that_nothing_else_does():
    """From one well of 27: minimising finds one shape, harmless steps none more, the ceiling most of the members'."""
    assert distinct(recorded("one", "plain")[-1]) == 1
    ceiling = recorded("one", "ceiling")[-1]
    assert distinct(ceiling) >= 4 and (ceiling.energies <= 1e-5).all() and ceiling.at_rest.all()
    assert distinct(ceiling) > distinct(recorded("one", "sum")[-1])


def test_the_end_is_in_order_and_says_what_it_found():
    end = recorded("one", "ceiling")[-1]
    assert torch.equal(end.energies, end.energies.sort()[0]) and end.phase == "done"
    assert torch.equal(end.energies, Clock().energies(end.positions))
    assert torch.equal(end.distances, Clock().unlike(end.positions))
    shapes = distinct(end, settings().alike)
    assert end.outcome.startswith(f"8 conformers, {shapes} different shapes within 0.0 kcal/mol")
    assert "1 shape within" in recorded("one", "plain")[-1].outcome and "rest" not in end.outcome


def test_the_path_ends_in_the_order_of_the_members():
    """Members are sorted at the end, and so is their path: its last moment is near where they came to rest."""
    end = recorded("one", "ceiling")[-1]
    before = recorded("one", "ceiling")[-2]
    assert end.path.shape[1:] == end.positions.shape and len(end.path) > 10
    swapped = (before.positions[:, None] - end.positions[None]).square().sum(dim=(2, 3)).argmin(dim=1)
    assert not torch.equal(swapped, torch.arange(8)), "the order did change"
    gap = (end.path[-1] - end.positions).norm(dim=2).max()
    assert gap < 0.3, gap


def test_too_few_rounds_are_said():
    end = last(conformer_search(Clock(), settings(rounds=1, method="plain"), 7))
    assert "had not come to rest" in end.outcome and not end.at_rest.all()


def test_a_run_goes_on_from_every_snapshot():
    """Through bytes, as a surface keeps them: the same final bytes from wherever it stood."""
    for start in ("few", "one"):
        snapshots = recorded(start, "ceiling")
        expected = snapshot_bytes(snapshots[-1])
        for snapshot in (*snapshots[:3], *snapshots[3::3]):
            kept = snapshot_from(snapshot_bytes(snapshot), Shapes)
            again = conformer_search(Clock(), settings(start=start), 7, kept)
            assert snapshot_bytes(last(again)) == expected, (start, snapshot.phase, snapshot.step)


def test_embedding_goes_on_too():
    config = settings(members=20, start="all", steps=2)
    snapshots = record(conformer_search(Clock(), config, 7))
    for snapshot in snapshots[:4]:
        again = last(conformer_search(Clock(), config, 7, snapshot))
        assert snapshot_bytes(again) == snapshot_bytes(snapshots[-1]), snapshot.phase


def test_the_same_seed_gives_the_same_bytes():
    for start in ("few", "one"):
        again = record(conformer_search(Clock(), settings(start=start), 7))
        assert list(map(snapshot_bytes, again)) == list(map(snapshot_bytes, recorded(start)))
        assert snapshot_bytes(recorded(start, seed=8)[-1]) != snapshot_bytes(again[-1])


def test_closing_early_leaves_nothing_behind():
    made = Clock()
    run = conformer_search(made, settings(), 7)
    while next(run).phase != "settling":
        continue
    gone = weakref.ref(made)
    run.close()
    del made, run
    gc.collect()
    assert gone() is None


def test_the_path_keeps_within_its_bytes(monkeypatch):
    """Moments are thinned out when there is no more room, evenly, and never below two."""
    monkeypatch.setattr(search, "PATH_BYTES", 10 * 8 * 3 * 3 * 4)
    snapshots = record(conformer_search(Clock(), settings(start="one", steps=60), 7))
    sizes = [len(snapshot.path) for snapshot in snapshots]
    assert max(sizes) == 10 and snapshots[-1].stride >= 4 and sizes[-1] >= 5
    assert all(snapshot.path.numel() * 4 <= search.PATH_BYTES for snapshot in snapshots)
    assert torch.equal(snapshots[-2].path[0], snapshots[0].positions.float()), "the first moment stays"
    monkeypatch.setattr(search, "PATH_BYTES", 1)
    end = last(conformer_search(Clock(), settings(start="one"), 7))
    assert len(end.path) == 2


def test_a_long_path_has_a_most():
    end = last(conformer_search(Clock(), settings(steps=100, start="one"), 7))
    assert search.PATH_MOST / 2 <= len(end.path) <= search.PATH_MOST


def test_snapshots_of_many_large_molecules_stay_light():
    """256 members of 350 atoms (150 of them heavy), which is what the study's own limit of heavy atoms comes to."""

    class Large(Clock):
        def unlike(self, geometries):
            return torch.zeros(len(geometries), len(geometries), dtype=torch.float64)

    config = settings(members=256, start="all", method="linear", steps=1, tolerance=1e9)
    sizes = [nbytes(snapshot) for snapshot in conformer_search(Large(hands=350), config, 7)]
    assert 6 * 2**20 < max(sizes) <= MAX_BYTES


def test_without_slopes_it_relaxes():
    """A force field that has no gradients: each is embedded, and `relaxed` minimises a stride at a time."""
    made = Clock(smooth=False)
    snapshots = record(conformer_search(made, settings(rounds=100), 7))
    assert phases(snapshots) == ["relaxing", "done"] and made.strides and set(made.strides) <= {30, 10}
    assert snapshots[-1].at_rest.all() and (snapshots[-1].energies < 1e-5).all()
    assert (torch.stack([s.mean[-1] for s in snapshots]).diff() <= 0).all()


def test_rounds_bound_the_strides():
    made = Clock(smooth=False)
    last(conformer_search(made, settings(rounds=70, tolerance=1e-30), 7))
    assert sum(made.strides) <= 70


def test_fewer_geometries_are_fewer_conformers():
    """Where some cannot be embedded, those that could are used; where others can be turned, none is missing."""
    assert len(last(conformer_search(Clock(reach=5), settings(start="all"), 7)).positions) == 5
    end = last(conformer_search(Clock(reach=1), settings(), 7))
    assert end.seeds == 1 and len(end.positions) == 8


@pytest.mark.parametrize("energy", ["riesz0", "riesz2", "determinant", "variance"])
@pytest.mark.parametrize("members", [1, 2])
def test_one_or_two_members_run_to_their_end(members, energy):
    for start in search.STARTS:
        for method in ("ceiling", "linear"):
            config = settings(members=members, start=start, method=method, energy=energy, steps=3)
            end = last(conformer_search(Clock(), config, 7))
            assert len(end.positions) == members and end.energies.isfinite().all()
            assert end.outcome.startswith(f"{members} conformer")


def test_members_at_rest_when_they_settle_end_there():
    """A slope so large counts as rest that nobody has to move at all."""
    end = last(conformer_search(Clock(), settings(tolerance=1e3), 7))
    assert end.phase == "done" and end.at_rest.all()


@pytest.fixture(scope="module")
def chemist():
    with Chemist() as found:
        yield found


@cache
def glycol(chemist, smiles, seed=5, **changes):
    config = replace(Search(members=8, steps=30, start="one"), **changes)
    problem = molecule_shapes(smiles, "MMFF94s", seed, chemist, max_heavy=50, seconds=60.0, device="cpu")
    return last(conformer_search(problem, config, seed))


def test_a_molecule_gives_the_same_bytes_again(chemist):
    one, other = (glycol.__wrapped__(chemist, "COCCO", start="few", steps=5) for _ in range(2))
    assert snapshot_bytes(one) == snapshot_bytes(other)
    assert snapshot_bytes(glycol(chemist, "COCCO", seed=4, start="few", steps=5)) != snapshot_bytes(one)


def test_a_collapsed_start_spreads(chemist):
    """F31 in small: eight copies of one geometry of a glycol ether; minimised they are one shape."""
    plain, ceiling = (glycol(chemist, "COCCOCCOC", method=method) for method in ("plain", "ceiling"))
    assert distinct(plain) == 1 and distinct(ceiling) >= 4
    assert plain.at_rest.all() and ceiling.at_rest.all()
    assert ceiling.energies.mean() - plain.energies.mean() <= 2.0
