"""Many independent minimisations at once: L-BFGS with a step length and an end of its own for every member.

Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", Math. Programming 45 (1989), 503-528.

    p = -H g,  H from the last m pairs s = x' - x, y = g' - g;   x' = x + a p with f(x') <= f(x) + c a <g, p>

One evaluation of the whole batch a round: a member whose trial lowers its loss enough takes it and turns, another tries
a shorter step (the minimum of the parabola through what it knows) along the same direction. Members that have converged
leave the batch, so the last one to finish is not paid for by all.
"""

__all__ = ["Descent", "Objective", "begun", "descend"]

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Objective = Callable[[Float[Tensor, "n d"], Tensor], tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]]
MEMORY = 10
ARMIJO = 1e-4
SHORTEST, LONGEST = 0.1, 0.5
CURVATURE = 1e-10
# Members leave the batch together: moving the others' history costs more than a few idle evaluations.
CROWD = 0.75
STUCK = 1e-6
TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Descent:
    """Where n minimisations stand: points, losses, slopes, which have converged and the evaluations each has had."""

    points: Float[Tensor, "n d"]
    losses: Float[Tensor, " n"]
    slopes: Float[Tensor, "n d"]
    converged: Bool[Tensor, " n"]
    evaluations: Float[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class _Batch:
    """The members still under way: their direction and step, and the pairs (s, y) with 1 / <s, y>, 0 for none."""

    members: Tensor
    points: Tensor
    losses: Tensor
    slopes: Tensor
    direction: Tensor
    decline: Tensor
    step: Tensor
    moves: Tensor
    turns: Tensor
    weights: Tensor


def begun(objective: Objective, points: Float[Tensor, "n d"]) -> Descent:
    """Return the start of n minimisations of `objective(points, members) -> losses, slopes`."""
    points = points.detach().clone()
    losses, slopes = objective(points, torch.arange(len(points), device=points.device))
    return Descent(points, losses, slopes, torch.zeros_like(losses, dtype=torch.bool), torch.ones_like(losses))


def descend(
    objective: Objective,
    start: Descent,
    rounds: int = 1000,
    tolerance: float = 1e-2,
    reach: float = 0.3,
) -> Descent:
    """Return where the minimisations stand after at most `rounds` evaluations each.

    A member has converged where no entry of its slope exceeds `tolerance`, or where no step along a downhill direction
    lowers its loss any more. `reach` bounds how far a step moves any one entry. Losses never rise.
    """
    now = replace(start, converged=start.slopes.abs().amax(dim=1) <= tolerance)
    batch = _batch(now, torch.nonzero(~now.converged)[:, 0], reach)
    for _ in range(rounds):
        if not len(batch.members):
            break
        batch = _round(objective, batch, reach)
        done = (batch.slopes.abs().amax(dim=1) <= tolerance) | (batch.step * batch.direction.abs().amax(dim=1) < STUCK)
        now.evaluations[batch.members] += 1
        if int(done.sum()) > (1 - CROWD) * len(done):
            now = _written(now, batch, done)
            batch = _chosen(batch, torch.nonzero(~done)[:, 0])
    left = batch.slopes.abs().amax(dim=1) <= tolerance
    return _written(now, batch, left)


def _batch(now: Descent, members: Tensor, reach: float) -> _Batch:
    points, slopes = now.points[members], now.slopes[members]
    direction, decline, step = _aim(-slopes, slopes, reach)
    empty = points.new_zeros(MEMORY, *points.shape)
    return _Batch(
        members, points, now.losses[members], slopes, direction, decline, step, empty, empty.clone(),
        points.new_zeros(MEMORY, len(members)),
    )  # fmt: skip


def _round(objective: Objective, batch: _Batch, reach: float) -> _Batch:
    trial = batch.points + batch.step[:, None] * batch.direction
    losses, slopes = objective(trial, batch.members)
    better = losses <= batch.losses + ARMIJO * batch.step * batch.decline
    # The parabola through the loss, its decline and the trial's loss has its minimum here.
    bend = losses - batch.losses - batch.step * batch.decline
    share = (-0.5 * batch.step * batch.decline / (bend + TINY)).nan_to_num(0.0).clamp(SHORTEST, LONGEST)
    move, turn = trial - batch.points, slopes - batch.slopes
    product = (move * turn).sum(dim=1)
    known = better & (product > CURVATURE * move.square().sum(dim=1))
    weight = torch.where(known, 1 / torch.where(known, product, 1.0), 0.0)
    take = better[:, None]
    moves, turns, weights = batch.moves, batch.turns, batch.weights
    if bool(better.any()):
        moves = torch.cat([moves[1:], torch.where(take, move, 0.0)[None]])
        turns = torch.cat([turns[1:], torch.where(take, turn, 0.0)[None]])
        weights = torch.cat([weights[1:], weight[None]])
    points, slopes = torch.where(take, trial, batch.points), torch.where(take, slopes, batch.slopes)
    direction, decline, step = _aim(_two_loops(slopes, moves, turns, weights), slopes, reach)
    return replace(
        batch,
        points=points,
        losses=torch.where(better, losses, batch.losses),
        slopes=slopes,
        direction=torch.where(take, direction, batch.direction),
        decline=torch.where(better, decline, batch.decline),
        step=torch.where(better, step, batch.step * share),
        moves=moves, turns=turns, weights=weights,
    )  # fmt: skip


def _two_loops(slopes: Tensor, moves: Tensor, turns: Tensor, weights: Tensor) -> Tensor:
    """Return -H g from the kept pairs, newest last; the first H is <s, y> / <y, y> of the newest pair."""
    rest, shares = slopes, []
    for index in reversed(range(MEMORY)):
        share = weights[index] * (moves[index] * rest).sum(dim=1)
        rest = torch.addcmul(rest, share[:, None], turns[index], value=-1)
        shares.append(share)
    squares = (turns * turns).sum(dim=2)
    newest = _newest(weights)
    scale = 1 / (weights.gather(0, newest) * squares.gather(0, newest) + TINY)
    rest = rest * torch.where(weights.amax(dim=0) > 0, scale[0], 1.0)[:, None]
    for index in range(MEMORY):
        back = weights[index] * (turns[index] * rest).sum(dim=1)
        rest = torch.addcmul(rest, (shares[MEMORY - 1 - index] - back)[:, None], moves[index])
    return -rest


def _newest(weights: Tensor) -> Tensor:
    order = torch.arange(1, MEMORY + 1, device=weights.device)[:, None]
    return ((weights > 0) * order).argmax(dim=0, keepdim=True)


def _aim(direction: Tensor, slopes: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return a direction that goes down, its decline and a first step that moves no entry farther than `reach`."""
    decline = (direction * slopes).sum(dim=1)
    uphill = ~(decline < 0)
    direction = torch.where(uphill[:, None], -slopes, direction)
    decline = torch.where(uphill, -slopes.square().sum(dim=1), decline)
    step = (reach / (direction.abs().amax(dim=1) + TINY)).clamp(max=1.0)
    return direction, decline, step


def _chosen(batch: _Batch, kept: Tensor) -> _Batch:
    return _Batch(
        batch.members[kept], batch.points[kept], batch.losses[kept], batch.slopes[kept], batch.direction[kept],
        batch.decline[kept], batch.step[kept], batch.moves[:, kept], batch.turns[:, kept], batch.weights[:, kept],
    )  # fmt: skip


def _written(now: Descent, batch: _Batch, done: Tensor) -> Descent:
    """Return the whole population with the batch's members where they stand."""
    members = batch.members
    return replace(
        now,
        points=now.points.index_copy(0, members, batch.points),
        losses=now.losses.index_copy(0, members, batch.losses),
        slopes=now.slopes.index_copy(0, members, batch.slopes),
        converged=now.converged.index_copy(0, members, done),
    )
