"""Plain descent: the update, the descent lemma, and resuming."""

import torch

from studio.core.runs import last, record
from studio.core.seeds import generator_from
from studio.methods.descent import Descent, descent, descent_step
from studio.problems.planes import plane


def test_one_step_is_the_formula():
    points, gradients = torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, -10.0]])
    assert torch.equal(descent_step(points, gradients, 0.1), torch.tensor([[0.0, 3.0]]))


def test_small_steps_never_raise_the_loss_and_reach_the_ring():
    problem = plane("ring")
    run = descent(problem, problem.start(20, generator_from(3)), Descent(steps=300, rate=0.03))
    snapshots = record(run)
    losses = torch.stack([snapshot.losses for snapshot in snapshots])
    assert len(snapshots) == 301 and (losses.diff(dim=0) <= 1e-15).all()
    assert losses[-1].max() < 1e-20 and "20 points" in snapshots[-1].outcome


def test_ten_steps_are_five_and_five():
    problem = plane("curve")
    start = problem.start(6, generator_from(0))
    whole = last(descent(problem, start, Descent(steps=10)))
    half = last(descent(problem, start, Descent(steps=5)))
    resumed = last(descent(problem, half.points, Descent(steps=10), first=5))
    assert torch.equal(whole.points, resumed.points) and resumed.step == 10
