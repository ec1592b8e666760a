"""Ensembles: small networks learn the same examples and disagree where those leave them free."""

__all__ = ["Ensemble"]

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Self

import numpy as np
import torch

from studio.core.controls import Choice, Knob, Range
from studio.core.papers import HARMLESS, Paper
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.core.snapshots import MAX_BYTES
from studio.methods.diversity import ENERGIES
from studio.methods.ensemble import EnsembleConfig, Trained, ensemble
from studio.problems.classification import Classification, classification
from studio.problems.digits import DATA, WINDOW, labelled
from studio.render.decisions import decision_map, disagreement_map, enlarged, with_points
from studio.scenes import Curves, Images, Members, Scene, Series
from studio.studies.study import Study

GRID = 192
PICTURES = 9
FLOOR = 1e-12
STATE_BYTES = MAX_BYTES - 2**20


@dataclass(frozen=True)
class Ensemble(Study):
    """n small networks trained as one batched computation, alone or spreading out as far as their loss allows."""

    name: ClassVar[str] = "ensemble"
    title: ClassVar[str] = "Ensembles"
    shelf: ClassVar[str] = "Populations"
    summary: ClassVar[str] = (
        "Several small networks learn the same examples, some of them mislabelled. Harmless diversity lets them "
        "disagree where the examples leave them free."
    )
    papers: ClassVar[tuple[Paper, ...]] = (HARMLESS,)

    data: Annotated[
        str,
        Choice(*DATA),
        Knob("Data", "digits ship with scikit-learn, the toys are drawn; the others need a folder of your own"),
    ] = "digits"
    method: Annotated[
        str,
        Choice("plain", "point", "sum", "max", "linear"),
        Knob("Method", "plain: each alone; point, sum, max: harmless diversity; linear: a weighted sum"),
    ] = "point"
    members: Annotated[int, Range(2, 12), Knob("Members", "how many networks")] = 5
    steps: Annotated[int, Range(1, 5000), Knob("Steps")] = 1500
    training: Annotated[int, Range(20, 10_000, log=True), Knob("Training examples", "the rest is the test set")] = 400
    wrong: Annotated[float, Range(0.0, 0.5), Knob("Wrong labels", "share of the training examples")] = 0.1
    width: Annotated[int, Range(4, 128), Knob("Width", "of each hidden layer", advanced=True)] = 64
    depth: Annotated[int, Range(1, 4), Knob("Depth", "hidden layers", advanced=True)] = 2
    batch: Annotated[int, Range(8, 1024, log=True), Knob("Batch", "the same for all members", advanced=True)] = 100
    rate: Annotated[
        float, Range(1e-5, 0.1, log=True), Knob("Learning rate", "of Adam; its moments are the metric", advanced=True)
    ] = 2e-3
    reach: Annotated[
        float,
        Range(0.0, 4.0),
        Knob("Reach", "longest correction, in Adam steps; fades over the last fifth of the run", advanced=True),
    ] = 1.0
    energy: Annotated[
        str, Choice(*ENERGIES), Knob("Energy", "how crowding is measured; variance is a foil", advanced=True)
    ] = "riesz0"
    features: Annotated[
        str,
        Choice("others", "softmax"),
        Knob(
            "Features",
            "what members differ in: how they rank the classes that are not the label (from four classes), or all",
            advanced=True,
        ),
    ] = "others"
    diversify_on: Annotated[
        str,
        Choice("training batch", "noised batch"),
        Knob(
            "Spread on",
            "the noised batch is a warning: only the clean loss is guarded, and what members say about noise is ruined",
            advanced=True,
        ),
    ] = "training batch"
    noise: Annotated[
        float, Range(0.01, 2.0), Knob("Noise", "standard deviation added to a noised batch", advanced=True)
    ] = 0.5
    kappa: Annotated[
        float, Range(0.0, 0.95), Knob("Budget", "share of each decrease that spreading may spend", advanced=True)
    ] = 0.5
    weight: Annotated[
        float, Range(1e-4, 10.0, log=True), Knob("Weight", "of the energy in the linear method", advanced=True)
    ] = 0.1

    def run(self, start: Trained | None = None) -> Run[Trained]:
        """Return the training, from seeded networks or on from a snapshot of an earlier run.

        Raises `ValueError`, in one sentence, where the data are missing or the networks too large to keep.
        """
        config = EnsembleConfig(
            members=self.members, steps=self.steps, rate=self.rate, method=self.method, energy=self.energy,
            features=self.features, reach=self.reach, weight=self.weight, kappa=self.kappa,
            noise=self.noise if self.diversify_on == "noised batch" else 0.0,
        )  # fmt: skip
        return ensemble(self._checked(), config, generator_from(self.seed, "ensemble"), start)

    def view(self, snapshot: Trained) -> tuple[Scene, ...]:
        """Return what the members decide, their losses against their distances, and the curves so far."""
        problem = self._problem()
        pictures = _maps(problem, snapshot) if problem.shape == (2,) else _disputed(problem, snapshot)
        return pictures, _members(snapshot), *_curves(snapshot)

    def baseline(self) -> "Ensemble | None":
        """Return the same networks, each trained alone; None where this is it."""
        return None if self.method == "plain" else replace(self, method="plain")

    def forecast(self) -> str:
        """Return the size of the networks and where they are trained; a `ValueError` where a run cannot be."""
        problem = self._checked()
        return (
            f"{self.members} networks of {problem.parameters:,} parameters as one computation on the CPU, "
            f"{len(problem.inputs):,} examples to learn and {len(problem.test_inputs):,} to be asked about."
        )

    @classmethod
    def tiny(cls) -> Self:
        """Return three networks of eight hidden units and four steps."""
        return cls(steps=4, members=3, training=40, width=8, batch=20)

    def _problem(self) -> Classification:
        return _drawn(self.data, self.seed, self.training, self.wrong, (self.width,) * self.depth, self.batch)

    def _checked(self) -> Classification:
        problem = self._problem()
        state = 12 * self.members * problem.parameters
        if state > STATE_BYTES:
            raise ValueError(
                f"members and width make a state of {state / 2**20:.0f} MB, and a snapshot holds "
                f"{STATE_BYTES / 2**20:.0f}: take fewer members or a smaller width"
            )
        return problem


@lru_cache(maxsize=4)
def _drawn(data: str, seed: int, count: int, wrong: float, hidden: tuple[int, ...], batch: int) -> Classification:
    return classification(labelled(data), seed, count, wrong, hidden, batch)


@torch.no_grad()
def _maps(problem: Classification, snapshot: Trained) -> Images:
    """Return the decision map of each member, that of their mean, and where members are outvoted."""
    axis = torch.linspace(-WINDOW, WINDOW, GRID)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    outputs = problem.outputs(snapshot.parameters, torch.stack([x.flatten(), y.flatten()], dim=1))
    chances = outputs.softmax(dim=2).unflatten(1, (GRID, GRID)).double()
    places = ((problem.inputs / WINDOW + 1) / 2).double().numpy()
    labels = problem.labels.numpy()
    maps = [decision_map(chance.numpy()) for chance in (*chances, chances.mean(dim=0))]
    votes = torch.nn.functional.one_hot(chances.argmax(dim=3), chances.shape[3]).sum(dim=0)
    outvoted = 1 - votes.amax(dim=2).double() / len(chances)
    split = disagreement_map(2 * outvoted.numpy())
    captions = tuple(f"member {i + 1}: {share:.1%}" for i, share in enumerate(snapshot.member_accuracies.tolist()))
    pixels = np.stack([*(with_points(each, places, labels) for each in maps), split])
    return Images(pixels, (*captions, f"their mean: {snapshot.accuracies[-1].item():.1%}", "darker: members differ"))


@torch.no_grad()
def _disputed(problem: Classification, snapshot: Trained) -> Images:
    """Return the test pictures on which the most members are outvoted, the least sure first, with their votes."""
    chances = problem.outputs(snapshot.parameters, problem.test_inputs).softmax(dim=2)
    votes = chances.argmax(dim=2)
    counts = torch.nn.functional.one_hot(votes, chances.shape[2]).sum(dim=0)
    unsure = -counts.amax(dim=1).double() - chances.double().mean(dim=0).amax(dim=1)
    chosen = unsure.sort(descending=True, stable=True).indices[:PICTURES]
    pictures = problem.test_inputs[chosen].unflatten(1, problem.shape)
    captions = tuple(
        f"{problem.classes[label]}? {_tally([problem.classes[vote] for vote in column])}"
        for label, column in zip(problem.test_labels[chosen].tolist(), votes[:, chosen].T.tolist(), strict=True)
    )
    return Images(enlarged(pictures.numpy()), captions)


def _tally(votes: list[str]) -> str:
    """Return votes as words, the most frequent first: '3 x2, 8, 5'."""
    return "votes " + ", ".join(f"{name} x{n}" if n > 1 else name for name, n in Counter(votes).most_common())


def _members(snapshot: Trained) -> Members:
    accuracies = snapshot.member_accuracies.tolist()
    return Members(
        title="Members",
        loss_label="training loss",
        distance_label="differs from the nearest other on, % of test",
        losses=snapshot.train_losses.double().clamp(min=FLOOR).numpy(),
        distances=100 * snapshot.distances.double().numpy(),
        captions=tuple(f"member {index + 1}: {share:.1%} right" for index, share in enumerate(accuracies)),
        log_loss=True,
    )


def _curves(snapshot: Trained) -> tuple[Curves, ...]:
    """Return the loss of every step once there is one, and what the test set said at the measured steps."""
    found = snapshot.measured.double().numpy()
    asked = (
        Series("ensemble right", found, 100 * snapshot.accuracies.double().numpy()),
        Series("members differ", found, 100 * snapshot.disagreements.double().numpy()),
    )
    steps = np.arange(1, len(snapshot.mean_losses) + 1, dtype=np.float64)
    mean, worst = (part.double().clamp(min=FLOOR).numpy() for part in (snapshot.mean_losses, snapshot.worst_losses))
    losses = (Series("mean", steps, mean), Series("worst", steps, worst))
    tests = Curves("Test set", "step", "%", asked)
    return (Curves("Loss on the batch", "step", "cross-entropy", losses, log_y=True), tests) if len(steps) else (tests,)
