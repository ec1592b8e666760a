"""Many independent minimisations at once: L-BFGS with a step length and an end of its own for every member.

Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", Math. Programming 45 (1989), 503-528.

    p = -H g,  H from the last m pairs s = x' - x, y = g' - g;   x' = x + a p with f(x') <= f(x) + c a <g, p>

One evaluation of the whole batch a round: a member whose trial lowers its loss enough takes it and turns, another tries
a shorter step (the minimum of the parabola through what it knows) along the same direction. Members that are through
leave the batch, so the last one to finish is not paid for by all. The first H is a multiple of the identity, or the
inverse of a positive definite curvature that the caller knows, taken anew every few rounds, the pairs then being
forgotten: where some directions are a thousand times stiffer than others that is worth ten times the rounds.
"""

__all__ = ["Descent", "Minimiser", "begun", "descend"]

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
Curvature = Callable[[Tensor], Tensor]
MEMORY = 10
ARMIJO = 1e-4
SHORTEST, LONGEST = 0.1, 0.5
ROUGH = 1e-10
STUCK = 1e-7
TINY = 1e-30
# Members leave the batch in crowds: moving the others' history costs more than a few idle evaluations.
CROWD = 0.2
# As many numbers as the curvatures of the members minimised together may have.
AT_ONCE = 2**25


@dataclass(frozen=True)
class Minimiser:
    """Settings: most evaluations of a member, the largest entry of a slope at its end, the longest move of an entry.

    `refresh`: rounds after which the curvature is taken anew.
    """

    rounds: int = 1000
    tolerance: float = 1e-2
    reach: float = 0.3
    refresh: int = 15


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
    """The members still under way: their direction and step, and the pairs (s, y) with 1 / <s, y>, 0 for none.

    `inverse` is that of the curvature, in single precision, as it only steers; empty where there is none.
    """

    members: Tensor
    points: Tensor
    losses: Tensor
    slopes: Tensor
    direction: Tensor
    decline: Tensor
    step: Tensor
    moves: tuple[Tensor, ...]
    turns: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    inverse: Tensor


def begun(objective: Objective, points: Float[Tensor, "n d"]) -> Descent:
    """Return the start of n minimisations of `objective(points) -> losses, slopes`."""
    points = points.detach().clone()
    losses, slopes = objective(points)
    return Descent(points, losses, slopes, torch.zeros_like(losses, dtype=torch.bool), torch.ones_like(losses))


def descend(
    objective: Objective, start: Descent, config: Minimiser | None = None, curvature: Curvature | None = None
) -> Descent:
    """Return where the minimisations stand after at most `rounds` further evaluations each; losses never rise.

    A member has converged where no entry of its slope exceeds `tolerance`; one whose steps have become too short to
    matter stops without. `curvature(points) -> (n, d, d)` preconditions.
    """
    config = config or Minimiser()
    small = start.slopes.abs().amax(dim=1) <= config.tolerance
    now = replace(start, converged=small, evaluations=start.evaluations.clone())
    n, d = start.points.shape
    share = n if curvature is None else max(1, AT_ONCE // (d * d))
    for members in torch.nonzero(~small)[:, 0].split(max(1, share)):
        if len(members):
            now = _together(objective, now, members, config, curvature)
    return now


def _together(
    objective: Objective, now: Descent, members: Tensor, config: Minimiser, curvature: Curvature | None
) -> Descent:
    batch = _begin(now.points[members], now.losses[members], now.slopes[members], members, config, curvature)
    for index in range(config.rounds):
        if not len(batch.members):
            break
        if curvature is not None and index and index % config.refresh == 0:
            batch = _begin(batch.points, batch.losses, batch.slopes, batch.members, config, curvature)
        batch = _round(objective, batch, config.reach)
        now.evaluations[batch.members] += 1
        small = batch.slopes.abs().amax(dim=1) <= config.tolerance
        through = small | (batch.step * batch.direction.abs().amax(dim=1) < STUCK)
        if int(through.sum()) > CROWD * len(through):
            now = _written(now, batch, small)
            batch = _kept(batch, torch.nonzero(~through)[:, 0])
    return _written(now, batch, batch.slopes.abs().amax(dim=1) <= config.tolerance)


def _begin(
    points: Tensor, losses: Tensor, slopes: Tensor, members: Tensor, config: Minimiser, curvature: Curvature | None
) -> _Batch:
    inverse = points.new_zeros(0)
    if curvature is not None:
        inverse = _inverse(curvature(points).float())
    direction, decline, step = _aim(-_scaled(slopes, inverse), slopes, config.reach)
    return _Batch(members, points, losses, slopes, direction, decline, step, (), (), (), inverse)


def _inverse(curvature: Tensor) -> Tensor:
    """Return the inverse of each curvature; the identity where one is too extreme for single precision."""
    factors, failed = torch.linalg.cholesky_ex(curvature)
    same = torch.eye(curvature.shape[1], dtype=curvature.dtype, device=curvature.device)
    return torch.cholesky_inverse(torch.where((failed > 0)[:, None, None], same, factors))


def _round(objective: Objective, batch: _Batch, reach: float) -> _Batch:
    trial = torch.addcmul(batch.points, batch.step[:, None], batch.direction)
    losses, found = objective(trial)
    hoped = batch.step * batch.decline
    better = losses <= batch.losses + ARMIJO * hoped
    take = better[:, None]
    # The parabola through the loss, its decline and the trial's loss has its minimum here.
    share = (-0.5 * hoped / (losses - batch.losses - hoped + TINY)).nan_to_num(0.0).clamp(SHORTEST, LONGEST)
    move, turn = torch.where(take, trial - batch.points, 0.0), torch.where(take, found - batch.slopes, 0.0)
    product = (move * turn).sum(dim=1)
    known = product > ROUGH * move.square().sum(dim=1)
    weight = torch.where(known, 1 / torch.where(known, product, 1.0), 0.0)
    slopes = torch.where(take, found, batch.slopes)
    now = replace(
        batch, points=torch.where(take, trial, batch.points), losses=torch.where(better, losses, batch.losses),
        slopes=slopes, moves=(*batch.moves, move)[-MEMORY:], turns=(*batch.turns, turn)[-MEMORY:],
        weights=(*batch.weights, weight)[-MEMORY:],
    )  # fmt: skip
    direction, decline, step = _aim(-_two_loops(now), slopes, reach)
    return replace(
        now, direction=torch.where(take, direction, batch.direction),
        decline=torch.where(better, decline, batch.decline), step=torch.where(better, step, batch.step * share),
    )  # fmt: skip


def _two_loops(batch: _Batch) -> Tensor:
    """Return H g from the kept pairs, newest last."""
    rest, shares = batch.slopes, []
    pairs = list(zip(batch.moves, batch.turns, batch.weights, strict=True))
    for move, turn, weight in reversed(pairs):
        shares.append(weight * (move * rest).sum(dim=1))
        rest = torch.addcmul(rest, shares[-1][:, None], turn, value=-1)
    rest = _scaled(rest, batch.inverse) if batch.inverse.numel() else rest * _length(pairs)[:, None]
    for (move, turn, weight), share in zip(pairs, reversed(shares), strict=True):
        back = weight * (turn * rest).sum(dim=1)
        rest = torch.addcmul(rest, (share - back)[:, None], move)
    return rest


def _length(pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return <s, y> / <y, y> of each member's newest pair, 1 before the first."""
    found = torch.ones_like(pairs[0][2])
    for _, turn, weight in pairs:
        found = torch.where(weight > 0, 1 / (weight * turn.square().sum(dim=1) + TINY), found)
    return found


def _scaled(slopes: Tensor, inverse: Tensor) -> Tensor:
    return torch.bmm(inverse, slopes.float()[:, :, None])[:, :, 0].to(slopes) if inverse.numel() else slopes


def _aim(direction: Tensor, slopes: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return a direction that goes down, its decline and a first step that moves no entry farther than `reach`."""
    decline = (direction * slopes).sum(dim=1)
    uphill = ~(decline < 0)
    direction = torch.where(uphill[:, None], -slopes, direction)
    decline = torch.where(uphill, -slopes.square().sum(dim=1), decline)
    step = (reach / (direction.abs().amax(dim=1) + TINY)).clamp(max=1.0)
    return direction, decline, step


def _kept(batch: _Batch, kept: Tensor) -> _Batch:
    each = {name: value[kept] for name, value in vars(batch).items() if isinstance(value, Tensor) and value.numel()}
    pairs = {name: tuple(part[kept] for part in getattr(batch, name)) for name in ("moves", "turns", "weights")}
    return replace(batch, **each, **pairs)


def _written(now: Descent, batch: _Batch, small: Tensor) -> Descent:
    """Return the whole population with the batch's members where they stand."""
    at = batch.members
    return replace(
        now, points=now.points.index_copy(0, at, batch.points), losses=now.losses.index_copy(0, at, batch.losses),
        slopes=now.slopes.index_copy(0, at, batch.slopes), converged=now.converged.index_copy(0, at, small),
    )  # fmt: skip
