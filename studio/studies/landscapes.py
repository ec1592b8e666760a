"""Landscapes: a cloud of points descends a loss whose set of optima is known."""

__all__ = ["Landscapes"]

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch

from studio.core.controls import Choice, Knob, Range
from studio.core.papers import HARMLESS, Paper
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.descent import Descent, Population, descent
from studio.problems.planes import Plane, plane
from studio.scenes import Curves, Points, Scene, Series
from studio.studies.study import Study

GRID = 81


@dataclass(frozen=True)
class Landscapes(Study):
    """Points in the plane under gradient descent, over the contours of the loss and its optimum set."""

    name: ClassVar[str] = "landscapes"
    title: ClassVar[str] = "Landscapes"
    summary: ClassVar[str] = (
        "A cloud of points rolls downhill. Where many optima exist, watch how few of them plain descent finds."
    )
    papers: ClassVar[tuple[Paper, ...]] = (HARMLESS,)

    loss: Annotated[
        str, Choice("ring", "curve", "himmelblau", "rugged"), Knob("Loss", "each has a known set of optima")
    ] = "ring"
    points: Annotated[int, Range(1, 200), Knob("Points", "how many start together")] = 20
    spread: Annotated[float, Range(0.01, 1.0), Knob("Start spread", "width of the starting cloud, in half windows")] = (
        0.15
    )
    steps: Annotated[int, Range(1, 2000), Knob("Steps")] = 200
    rate: Annotated[float, Range(1e-4, 0.2, log=True), Knob("Step size", "too large a step diverges: try it")] = 0.03

    def run(self, start: Population | None = None) -> Run[Population]:
        """Return the descent, from the seeded cloud or on from a snapshot of an earlier run."""
        config = Descent(steps=self.steps, rate=self.rate)
        if start is not None:
            return descent(self._problem(), start.points, config, first=start.step)
        cloud = self._problem().start(self.points, generator_from(self.seed, "start"), self.spread)
        return descent(self._problem(), cloud, config)

    def view(self, snapshot: Population) -> tuple[Scene, ...]:
        """Return the points over the contours, and the mean loss so far."""
        problem = self._problem()
        axis = torch.linspace(-problem.window, problem.window, GRID, dtype=torch.float64)
        x, y = torch.meshgrid(axis, axis, indexing="xy")
        heights = problem.loss(torch.stack([x.flatten(), y.flatten()], dim=1)).reshape(GRID, GRID)
        picture = Points(
            positions=snapshot.points.numpy(),
            values=snapshot.losses.numpy(),
            x=axis.numpy(),
            y=axis.numpy(),
            heights=heights.numpy(),
            optimum=problem.optimum.numpy(),
        )
        means = snapshot.mean_losses
        first = snapshot.step - len(means) + 1
        steps = torch.arange(first, snapshot.step + 1, dtype=torch.float64)
        line = Series("mean loss", steps.numpy(), means.clamp(min=1e-16).numpy())
        return picture, Curves("Loss", "step", "mean loss", (line,), log_y=True)

    def forecast(self) -> str:
        """Return what a run needs: next to nothing."""
        return f"{self.points} points in the plane, in double precision on the CPU: a second or two."

    def _problem(self) -> Plane:
        return plane(self.loss)

    @classmethod
    def tiny(cls) -> Self:
        """Return six points and four steps."""
        return dataclasses.replace(cls(), points=6, steps=4)
