"""Harmless diversity: a population descends a loss and spreads over its set of optima without paying in loss.

Gong, Wu and Liu, "How to Fill the Optimum Set? Population Gradient Descent with Harmless Diversity", ICML 2022,
arXiv 2202.08376.

    maximise the diversity of x_1 .. x_n  subject to  every x_i in argmin f            (Phi: an energy, low is diverse)
    predict   h_i = x_i - mu P grad f(x_i)
    correct   x_i <- h_i - eta P (g_i + lambda_i a_i),   a_i = grad f(h_i),  g_i = grad_i Phi(h)
    sum       one multiplier:  lambda = max(0, (-sum <a_i, P g_i> - b / eta) / sum <a_i, P a_i>)
    max       each its own:  lambda_i = max(0, (-<a_i, P g_i> - (T - f(h_i)) / eta) / <a_i, P a_i>), T = max_j f(h_j)
    point     as max with T_i = f(h_i)

The problem, the two variants and the predict-correct form follow the paper's description; its text was not at hand, so
the multipliers were derived here from the constrained problem they solve. What we added: a first-order constraint
leaves a second-order loss floor, so the correction is *checked*. It is kept only where

    F(x_new) <= F(x) - (1 - kappa) (F(x) - F(h)),      F the sum, the maximum, or each point's own loss,

and halved otherwise (only the offenders where F decouples), to nothing after six times; a prediction that raises a
loss is halved likewise. Gradient descent's rate is then slowed by 1 / (1 - kappa) at most, whatever the energy. P is
a diagonal metric (Adam's): projecting in P keeps the guarantee that projecting first and rescaling after loses.

With isolated optima nothing moves once each member has its basin. `ceiling` is for such rugged losses: every member
may climb up to T_t = (lowest loss now) + W_t, where W_t falls from `width` to 0 before the settling steps begin, so a
member can cross barriers early and is held to its own loss late; what is above T_t obeys the budget rule.
"""

__all__ = ["Harmless", "Spread", "barrier_direction", "harmless", "harmless_direction", "multipliers"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.core.problems import PointProblem
from studio.core.runs import Run
from studio.core.snapshots import Snapshot
from studio.methods.diversity import clipped, energy, nearest_gap

HALVINGS = 6
GROWTH = 2.0
TINY = 1e-30


@runtime_checkable
class Population(PointProblem, Protocol):
    """A loss over points, and the features in which their diversity is measured."""

    def features(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return the features of each point, differentiable in the points."""
        ...


@dataclass(frozen=True)
class Harmless:
    """Settings: steps, the descent step mu, the constraint, the energy and the share kappa of each decrease to spend.

    `method`: sum | max | point (harmless), ceiling (harmless in the end), plain (no diversity), linear (descend
    f + weight * Phi), barrier (the one-shot dynamic-barrier form), svgd. `reach` bounds a first correction to this
    share of the population's size; over the last `settle` of the steps kappa falls to 0, so that what was spent comes
    down again. `width`: how far above the lowest loss the ceiling begins.
    """

    steps: int = 300
    rate: float = 0.05
    method: str = "max"
    energy: str = "riesz1"
    kappa: float = 0.5
    settle: float = 0.2
    weight: float = 0.1
    width: float = 1.0
    reach: float = 1.0
    cap: float = 1e4


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread(Snapshot):
    """The population after a step, with the history its charts need; `eta` is the correction step of each member.

    `bound` is what F was allowed to be after this step: one entry for the sum, else one a member.
    """

    points: Float[Tensor, "n d"]
    losses: Float[Tensor, " n"]
    eta: Float[Tensor, " n"]
    rate: Float[Tensor, " n"]
    mean_losses: Float[Tensor, " t"]
    worst_losses: Float[Tensor, " t"]
    gaps: Float[Tensor, " t"]
    bound: Float[Tensor, " b"]


def harmless(
    problem: Population, points: Float[Tensor, "n d"], config: Harmless, start: Spread | None = None
) -> Run[Spread]:
    """Yield the start and then every step; `start` is a snapshot to go on from (ten steps are five and five)."""
    now = start if start is not None else _beginning(problem, points, config)
    yield replace(now, total=config.steps, outcome=_sentence(now) if now.step >= config.steps else "")
    while now.step < config.steps:
        now = _step(problem, now, config)
        yield now


def multipliers(
    slopes: Float[Tensor, "n d"],
    pushes: Float[Tensor, "n d"],
    slack: Float[Tensor, " n"],
    eta: Float[Tensor, " n"],
    metric: Float[Tensor, "n d"] | None = None,
    cap: float = 1e4,
) -> Float[Tensor, " n"]:
    """Return each member's lambda_i for <a_i, delta_i> <= slack_i, at least 0 and at most `cap`.

    The multipliers of the quadratic programs min <g, delta> + |delta|^2 / (2 eta) (in the metric), one a member.
    """
    scaled = slopes if metric is None else metric * slopes
    agreement = (scaled * pushes).sum(dim=1)
    length = (scaled * slopes).sum(dim=1)
    return ((-agreement - slack / eta) / (length + TINY)).clamp(min=0.0, max=cap)


def harmless_direction(
    slopes: Float[Tensor, "n d"],
    pushes: Float[Tensor, "n d"],
    slack: Float[Tensor, " n"],
    eta: Float[Tensor, " n"],
    together: bool,
    metric: Float[Tensor, "n d"] | None = None,
    cap: float = 1e4,
) -> Float[Tensor, "n d"]:
    """Return the correction delta: the energy's push with just enough descent added that the constraint holds.

    `together` takes one constraint over the whole population (the sum of `slack` is its slack, `eta[0]` its step).
    """
    if together:
        flat = None if metric is None else metric.reshape(1, -1)
        found = multipliers(slopes.reshape(1, -1), pushes.reshape(1, -1), slack.sum()[None], eta[:1], flat, cap)
        weight = found.expand(len(slopes))
    else:
        weight = multipliers(slopes, pushes, slack, eta, metric, cap)
    direction = pushes + weight[:, None] * slopes
    return -eta[:, None] * (direction if metric is None else metric * direction)


def barrier_direction(
    slopes: Float[Tensor, "n d"], pushes: Float[Tensor, "n d"], phi: Float[Tensor, " n"]
) -> Float[Tensor, "n d"]:
    """Return v = grad Phi + lambda grad f with <grad f, v> >= phi (the dynamic barrier of Gong, Liu and Liu)."""
    length = slopes.square().sum(dim=1)
    weight = ((phi - (slopes * pushes).sum(dim=1)) / (length + 1e-12)).clamp(min=0.0)
    return pushes + weight[:, None] * slopes


def _beginning(problem: Population, points: Tensor, config: Harmless) -> Spread:
    points = points.detach().clone()
    losses, _ = _losses(problem, points)
    n = len(points)
    return Spread(
        step=0, total=config.steps, phase=config.method, points=points, losses=losses,
        eta=points.new_zeros(n), rate=points.new_full((n,), config.rate),
        mean_losses=losses.mean()[None], worst_losses=losses.max()[None],
        gaps=_gap(problem, points)[None], bound=losses,
    )  # fmt: skip


def _step(problem: Population, last: Spread, config: Harmless) -> Spread:
    moves: dict[str, Callable[[Population, Spread, Harmless], tuple[Tensor, Tensor, Tensor, Tensor]]] = {
        "plain": _descend, "linear": _linear, "barrier": _barrier, "svgd": _svgd,
    }  # fmt: skip
    points, eta, rate, bound = moves.get(config.method, _predict_correct)(problem, last, config)
    losses, _ = _losses(problem, points)
    now = Spread(
        step=last.step + 1, total=config.steps, phase=config.method, points=points, losses=losses, eta=eta, rate=rate,
        mean_losses=torch.cat((last.mean_losses, losses.mean()[None])),
        worst_losses=torch.cat((last.worst_losses, losses.max()[None])),
        gaps=torch.cat((last.gaps, _gap(problem, points)[None])), bound=bound,
    )  # fmt: skip
    return replace(now, outcome=_sentence(now)) if now.step == config.steps else now


def _predict_correct(problem: Population, last: Spread, config: Harmless) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    predicted, rate = _predict(problem, last, config)
    found, slopes = _losses(problem, predicted)
    pushes = _pushes(problem, predicted, config)
    ceiling = _ceiling(last, found, config)
    together = config.method == "sum"
    eta = _first_eta(predicted, pushes, last.eta, config)
    slack = {"max": found.max(), "ceiling": torch.maximum(found, ceiling)}.get(config.method, found) - found
    points, kept = predicted, torch.zeros_like(eta, dtype=torch.bool)
    for _ in range(HALVINGS + 1):
        moved = predicted + harmless_direction(slopes, pushes, slack, eta, together, cap=config.cap)
        fits = _fits(_values(problem, moved), ceiling, together) & ~kept
        points = torch.where(fits[:, None], moved, points)
        kept = kept | fits
        if bool(kept.all()):
            break
        eta = torch.where(kept, eta, 0.5 * eta)
    return points, eta * GROWTH, rate, ceiling


def _predict(problem: Population, last: Spread, config: Harmless) -> tuple[Tensor, Tensor]:
    """Return the points after a descent step that raises no loss, and each member's step size for the next one."""
    losses, slopes = _losses(problem, last.points)
    rate = last.rate.clone()
    points = last.points - rate[:, None] * slopes
    for _ in range(4 * HALVINGS):
        worse = _values(problem, points) > losses
        if not bool(worse.any()):
            break
        rate = torch.where(worse, 0.5 * rate, rate)
        points = last.points - rate[:, None] * slopes
    else:
        points = torch.where(worse[:, None], last.points, points)
    return points, (1.2 * rate).clamp(max=config.rate)


def _share(step: int, config: Harmless) -> float:
    """Return the share of a decrease that may be spent: kappa, falling to 0 over the last part of the run."""
    left = (config.steps - 1 - step) / max(config.settle * config.steps, 1.0)
    return config.kappa * min(1.0, left)


def _ceiling(last: Spread, predicted: Tensor, config: Harmless) -> Tensor:
    """Return what F may be after the correction: (1,) for the sum, else (n,)."""
    before, share = last.losses, _share(last.step, config)
    if config.method == "sum":
        before, predicted = before.sum()[None], predicted.sum()[None]
    elif config.method == "max":
        before, predicted = before.max().expand_as(before), predicted.max().expand_as(before)
    budget = before - (1 - share) * (before - predicted)
    if config.method != "ceiling":
        return budget
    left = max(0.0, 1 - last.step / max((1 - config.settle) * config.steps, 1.0))
    return torch.maximum(budget, predicted.min() + config.width * left) if left else budget


def _fits(losses: Tensor, ceiling: Tensor, together: bool) -> Bool[Tensor, " n"]:
    return (losses.sum() <= ceiling).expand(len(losses)) if together else losses <= ceiling


def _first_eta(points: Tensor, pushes: Tensor, eta: Tensor, config: Harmless) -> Tensor:
    """Return correction steps no larger than the last ones (0: none yet) and than a share of the extent allows."""
    extent = config.reach * (points - points.mean(dim=0)).norm(dim=1).mean()
    lengths = pushes.norm(dim=1)
    most = extent / ((lengths.max().expand_as(lengths) if config.method == "sum" else lengths) + TINY)
    return torch.where(eta > 0, torch.minimum(eta, most), most)


def _descend(problem: Population, last: Spread, config: Harmless) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points, rate = _predict(problem, last, config)
    return points, last.eta, rate, last.losses


def _linear(problem: Population, last: Spread, config: Harmless) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, slopes = _losses(problem, last.points)
    direction = slopes + config.weight * _pushes(problem, last.points, config)
    return last.points - config.rate * direction, last.eta, last.rate, last.losses


def _barrier(problem: Population, last: Spread, config: Harmless) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    losses, slopes = _losses(problem, last.points)
    phi = torch.minimum(losses, slopes.square().sum(dim=1))
    direction = barrier_direction(slopes, config.weight * _pushes(problem, last.points, config), phi)
    return last.points - config.rate * direction, last.eta, last.rate, last.losses


def _svgd(problem: Population, last: Spread, config: Harmless) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stein variational gradient descent (Liu and Wang, 2016) on exp(-f / weight), kernel at the median distance."""
    _, slopes = _losses(problem, last.points)
    squares = torch.cdist(last.points, last.points).square()
    scale = (squares.median() / torch.log(torch.tensor(len(squares) + 1.0))).clamp(min=1e-12)
    kernel = torch.exp(-squares / scale)
    apart = 2 / scale * (kernel.sum(dim=1, keepdim=True) * last.points - kernel @ last.points)
    move = (-kernel @ slopes + config.weight * apart) / len(squares)
    return last.points + config.rate * move, last.eta, last.rate, last.losses


def _pushes(problem: Population, points: Tensor, config: Harmless) -> Tensor:
    leaf = points.detach().requires_grad_()
    (pushes,) = torch.autograd.grad(energy(config.energy)(problem.features(leaf)), leaf)
    return clipped(pushes)


def _losses(problem: Population, points: Tensor) -> tuple[Tensor, Tensor]:
    leaf = points.detach().requires_grad_()
    losses = problem.loss(leaf)
    (slopes,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), slopes


@torch.no_grad()
def _values(problem: Population, points: Tensor) -> Tensor:
    return problem.loss(points)


@torch.no_grad()
def _gap(problem: Population, points: Tensor) -> Tensor:
    return nearest_gap(problem.features(points))


def _sentence(now: Spread) -> str:
    return (
        f"mean loss {now.losses.mean().item():.2g}, worst {now.losses.max().item():.2g}; "
        f"nearest neighbours {now.gaps[-1].item():.3g} apart"
    )
