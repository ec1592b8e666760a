"""FuseDream on pictures that push each other apart, on small random networks."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from small_nets import small_problem

from studio.core.runs import record
from studio.core.seeds import generator_from
from studio.methods.diversity import nearest_gap
from studio.methods.fusedream import Dream, FuseDreamConfig, _corrected, _flat, fusedream
from studio.methods.harmless_adam import within_budget
from studio.methods.scouting import scouted

SHORT = FuseDreamConfig(steps=6, basis=3, copies=2, yardstick=2, samples=24, refresh=2, check=2)


@cache
def dreams(config: FuseDreamConfig, members: int = 4, start: Dream | None = None) -> tuple[Dream, ...]:
    """A run, shared by the tests that ask for the same one."""
    return record(fusedream(small_problem(members=members), config, generator_from(1), start))


def spread(dream: Dream) -> float:
    problem = small_problem(members=len(dream.z))
    with torch.no_grad():
        return nearest_gap(problem.features(problem.decode(dream.z, dream.y))).item()


@pytest.mark.parametrize("method", ["point", "sum", "max"])
def test_without_reach_it_is_plain_fusedream(method: str) -> None:
    plain = dreams(SHORT)[-1]
    held = dreams(replace(SHORT, method=method, reach=0.0))[-1]
    assert all(torch.equal(one, two) for one, two in zip(plain.leaves, held.leaves, strict=True))
    assert plain.pushes.shape == (4, 0) and torch.allclose(plain.gaps, held.gaps, atol=1e-5)


def test_a_weight_of_nothing_is_plain_fusedream() -> None:
    one, two = dreams(SHORT)[-1], dreams(replace(SHORT, method="linear", weight=0.0))[-1]
    assert all(torch.equal(a, b) for a, b in zip(one.leaves, two.leaves, strict=True))


@pytest.mark.parametrize("method", ["point", "sum", "max"])
def test_pictures_move_apart(method: str) -> None:
    long = replace(SHORT, steps=25, settle=0.0, kappa=0.9)
    plain, ours = dreams(long)[-1], dreams(replace(long, method=method))[-1]
    assert spread(ours) > 1.05 * spread(plain)


@pytest.mark.parametrize("method", ["plain", "point", "sum", "max", "linear"])
def test_six_steps_are_three_and_three(method: str) -> None:
    config = replace(SHORT, method=method)
    whole = dreams(config)
    middle = next(dream for dream in whole if dream.step == 3)
    again = dreams(config, start=middle)[-1]
    assert torch.equal(again.z, whole[-1].z) and torch.equal(again.reach, whole[-1].reach)
    assert torch.equal(again.gaps, whole[-1].gaps)


def test_scouts_apart_are_nobody_s_twice_alike_within_and_the_best_stays() -> None:
    problem = small_problem(members=4)
    *_, (kept, _) = scouted(problem, 3, "bank", 200, generator_from(1), apart=True)
    *_, (shared, _) = scouted(problem, 3, "bank", 200, generator_from(1))
    z, _, features = kept
    own = {tuple(row.tolist()) for member in z for row in member}
    assert len(own) == 12 and tuple(shared[0][0, 0].tolist()) in own
    within = torch.cdist(features.double(), features.double()).sum(dim=(1, 2)) / (3 * 2)
    flat = features.flatten(0, 1).double()
    everywhere = torch.pdist(flat).mean()
    assert within.mean() < everywhere
    *_, (again, _) = scouted(small_problem(members=4), 3, "bank", 200, generator_from(9), apart=True)
    assert all(torch.equal(one, two) for one, two in zip(kept, again, strict=True))


def test_apart_shares_the_best_where_a_basis_is_wide() -> None:
    *_, (kept, _) = scouted(small_problem(members=2), 6, "bank", 200, generator_from(1), apart=True)
    rows = [{tuple(row.tolist()) for row in member} for member in kept[0]]
    assert all(len(row) == 6 for row in rows) and 2 <= len(rows[0] & rows[1]) < 6
    for members, k in ((1, 6), (2, 9), (3, 1), (5, 4)):
        *_, (kept, _) = scouted(small_problem(members=members), k, "bank", 200, generator_from(1), apart=True)
        assert kept[0].shape[:2] == (members, k)


def test_distances_are_told_at_every_step_and_measured_at_some() -> None:
    run = [dream for dream in dreams(replace(SHORT, method="point")) if dream.phase == "blend"]
    assert [len(dream.gaps) for dream in run] == [2, 3, 4, 5, 6, 7]
    gaps = run[-1].gaps
    assert gaps[1] == gaps[2] and gaps[3] == gaps[4] and gaps[2] != gaps[3]
    assert len(dreams(replace(SHORT, refresh=0))[-1].gaps) == 0


@pytest.mark.parametrize("method", ["point", "sum", "max"])
@pytest.mark.parametrize("curvature", [1.0, 1e3])
def test_the_budget_holds_on_every_checked_step(method: str, curvature: float) -> None:
    """F17 under noise: on the step's own draw, no correction spends more than kappa of the decrease."""
    config = replace(SHORT, method=method, check=1, learning_rate=0.05, clamp=100.0)
    refused = 0
    for seed in range(20):
        random = generator_from(seed)
        before = [torch.randn(3, 2, 5, generator=random) for _ in range(4)]
        slopes = [2 * curvature * leaf for leaf in before]
        moments = tuple(
            part for slope in slopes for part in (-0.1 * slope, 0.001 * slope * slope)
        )  # uphill on the score, after one step of Adam
        steps = [-config.learning_rate * torch.sign(slope) for slope in slopes]
        leaves = tuple(leaf + step for leaf, step in zip(before, steps, strict=True))
        pushes = torch.randn(3, 40, generator=random)

        def losses(leaves: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return curvature * _flat(leaves).square().sum(dim=1)

        old = losses(tuple(before))
        moved, reach = _corrected(config, leaves, moments, pushes, torch.ones(3), 1, old, losses)
        assert within_budget(old, losses(leaves), losses(moved), config.kappa, method).all()
        refused += int((reach < 1).any())
    assert refused < 20
