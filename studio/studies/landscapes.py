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
from studio.methods.diversity import ENERGIES, nearest_distances
from studio.methods.harmless import Harmless, Spread, harmless
from studio.problems.planes import Plane, plane
from studio.scenes import Curves, Members, Points, Scene, Series
from studio.studies.study import Study

GRID = 81
FLOOR = 1e-32


@dataclass(frozen=True)
class Landscapes(Study):
    """Points in the plane over the contours of a loss, descending it alone or spreading over its optima together."""

    name: ClassVar[str] = "landscapes"
    title: ClassVar[str] = "Landscapes"
    shelf: ClassVar[str] = "Populations"
    summary: ClassVar[str] = (
        "A cloud of points rolls downhill. Alone they crowd on a few optima; with harmless diversity they fill the set."
    )
    papers: ClassVar[tuple[Paper, ...]] = (HARMLESS,)

    loss: Annotated[
        str, Choice("ring", "curve", "himmelblau", "rugged"), Knob("Loss", "each has a known set of optima")
    ] = "ring"
    method: Annotated[
        str,
        Choice("plain", "max", "sum", "point", "ceiling", "linear", "barrier", "svgd"),
        Knob(
            "Method",
            "plain: each alone; max, sum, point: harmless; ceiling: may climb a while, for rugged losses; "
            "the others: what people did before",
        ),
    ] = "max"
    points: Annotated[int, Range(1, 200), Knob("Points", "how many start together")] = 20
    spread: Annotated[float, Range(0.01, 1.0), Knob("Start spread", "width of the cloud, in half windows")] = 0.15
    steps: Annotated[int, Range(1, 2000), Knob("Steps")] = 300
    rate: Annotated[
        float,
        Range(0.01, 10.0, log=True),
        Knob("Step size", "in steps that suit the loss; halved where it would raise one"),
    ] = 1.0
    energy: Annotated[
        str, Choice(*ENERGIES), Knob("Energy", "how crowding is measured; variance is a foil", advanced=True)
    ] = "riesz1"
    kappa: Annotated[
        float, Range(0.0, 0.95), Knob("Budget", "share of each decrease that spreading may spend", advanced=True)
    ] = 0.5
    weight: Annotated[
        float,
        Range(1e-4, 10.0, log=True),
        Knob("Weight", "of the energy in the linear, barrier and SVGD methods", advanced=True),
    ] = 0.1

    width: Annotated[
        float,
        Range(0.0, 20.0),
        Knob("Ceiling", "how far above the best loss members may climb at first, falling to 0", advanced=True),
    ] = 1.0

    def run(self, start: Spread | None = None) -> Run[Spread]:
        """Return the run, from the seeded cloud or on from a snapshot of an earlier one."""
        problem = self._problem()
        config = Harmless(
            steps=self.steps, rate=self.rate * problem.rate, method=self.method, energy=self.energy,
            kappa=self.kappa, weight=self.weight, width=self.width,
        )  # fmt: skip
        cloud = problem.start(self.points, generator_from(self.seed, "start"), self.spread)
        return harmless(problem, cloud, config, start)

    def view(self, snapshot: Spread) -> tuple[Scene, ...]:
        """Return the points over the contours, the losses so far, and how far apart neighbours are."""
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
        steps = torch.arange(len(snapshot.gaps), dtype=torch.float64).numpy()
        mean, worst = (part.clamp(min=FLOOR).numpy() for part in (snapshot.mean_losses, snapshot.worst_losses))
        losses = (Series("mean", steps, mean), Series("worst", steps, worst))
        gaps = (Series("nearest neighbour", steps, snapshot.gaps.numpy()),)
        nearest = nearest_distances(snapshot.points).numpy()
        captions = tuple(
            f"Point {index + 1} at ({x:.2f}, {y:.2f}): loss {loss:.2g}, nearest neighbour {gap:.3f} away"
            for index, ((x, y), loss, gap) in enumerate(
                zip(snapshot.points.tolist(), snapshot.losses.tolist(), nearest.tolist(), strict=True)
            )
        )
        members = Members(
            "Loss and spread", "loss", "distance to nearest", snapshot.losses.clamp(min=FLOOR).numpy(), nearest,
            captions, log_loss=True,
        )  # fmt: skip
        return (
            picture,
            members,
            Curves("Loss", "step", "loss", losses, log_y=True),
            Curves("Spread", "step", "distance to nearest", gaps),
        )

    def forecast(self) -> str:
        """Return what a run needs: next to nothing."""
        return f"{self.points} points in the plane, in double precision on the CPU: a second or two."

    def baseline(self) -> "Landscapes | None":
        """Return the same cloud rolling downhill without diversity; None where this is it."""
        return None if self.method == "plain" else dataclasses.replace(self, method="plain")

    def _problem(self) -> Plane:
        return plane(self.loss)

    @classmethod
    def tiny(cls) -> Self:
        """Return six points and four steps."""
        return dataclasses.replace(cls(), points=6, steps=4)
