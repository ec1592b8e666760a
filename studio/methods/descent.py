"""Plain gradient descent of many points at once, the yardstick of every population method.

Update: x_i <- x_i - mu grad f(x_i), each point on its own (Cauchy, 1847).
"""

__all__ = ["Descent", "Population", "descent", "descent_step"]

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from studio.core.problems import PointProblem
from studio.core.runs import Run
from studio.core.snapshots import Snapshot


@dataclass(frozen=True)
class Descent:
    """Settings: the number of steps and the step size mu."""

    steps: int = 200
    rate: float = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Population(Snapshot):
    """Points and their losses; `mean_losses` holds the mean loss of every step so far, the start included."""

    points: Float[Tensor, "n d"]
    losses: Float[Tensor, " n"]
    mean_losses: Float[Tensor, " k"]


def descent(problem: PointProblem, points: Float[Tensor, "n d"], config: Descent, first: int = 0) -> Run[Population]:
    """Yield the start and then every step of gradient descent; `first` is the step the points stand at."""
    means: list[Tensor] = []
    for step in range(first, config.steps + 1):
        losses, gradients = losses_and_gradients(problem, points)
        means.append(losses.mean())
        outcome = _sentence(losses) if step == config.steps else ""
        yield Population(
            step=step,
            total=config.steps,
            phase="descent",
            outcome=outcome,
            points=points.clone(),
            losses=losses,
            mean_losses=torch.stack(means),
        )
        points = descent_step(points, gradients, config.rate)


def descent_step(points: Float[Tensor, "n d"], gradients: Float[Tensor, "n d"], rate: float) -> Float[Tensor, "n d"]:
    """Return the points after one step of size `rate` down their gradients."""
    return points - rate * gradients


def losses_and_gradients(
    problem: PointProblem, points: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
    """Return each point's loss and the gradient of it in that point, both detached."""
    leaf = points.detach().requires_grad_()
    losses = problem.loss(leaf)
    (gradients,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradients


def _sentence(losses: Tensor) -> str:
    return f"mean loss {losses.mean().item():.2g}, worst {losses.max().item():.2g}, over {len(losses)} points"
