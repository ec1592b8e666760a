"""Ensembles: n networks descend one training loss together and disagree as far as that loss allows.

Gong, Wu and Liu, "How to Fill the Optimum Set? Population Gradient Descent with Harmless Diversity", ICML 2022,
arXiv 2202.08376; independent members after Lakshminarayanan, Pritzel and Blundell, 2016, arXiv 1612.01474.

    f(x_i)   cross-entropy of network i on a batch          u_i   features of its outputs on the batch, one long vector
    plain                  x_i <- x_i - rate P_i m_i                             (Adam, each for itself)
    point | sum | max      x_i <- x_i - rate P_i m_i + delta_i                   (see `harmless_adam`)
    linear                 Adam on  sum_i f(x_i) + weight * Phi(u_1 .. u_n)

The paper's set-up for ensembles was not at hand: the features, the noisy rule and its schedule are ours. Cross-entropy
pins the label's probability and leaves the others free, so `others` takes for u_i, example by example, the direction
of the centred logits of the classes that are not the label (that only these should differ is Pang et al., 2019, arXiv
1901.08846); `softmax` takes all probabilities, and pushes mostly where a label is still being learnt. All members see
the same batches in every method; only their starts differ. The push g is taken where the slope is, before Adam's step,
which saves a forward pass. Diversity is harmless for the loss it is measured beside and no other: `noise` above 0
pushes members apart on noised batches while the clean loss is guarded, and ruins what they say about noisy inputs.
"""

__all__ = ["EnsembleConfig", "EnsembleProblem", "Trained", "ensemble", "output_features"]

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.core.runs import Run
from studio.core.snapshots import Snapshot
from studio.methods.calibration import Scores, accuracy, disagreement, disagreements, ensemble_scores
from studio.methods.diversity import clipped, energy
from studio.methods.harmless_adam import (
    HARMLESS,
    adam_correction,
    adam_moments,
    adjusted_reach,
    fade,
    slack_of,
    within_budget,
)

SOFT = 1e-12


@runtime_checkable
class EnsembleProblem(Protocol):
    """Labelled inputs to learn from, inputs to be asked about, and networks as rows of parameters."""

    @property
    def inputs(self) -> Float[Tensor, "m f"]:
        """The training inputs, one a row."""
        ...

    @property
    def labels(self) -> Int[Tensor, " m"]:
        """Their labels, some of them wrong."""
        ...

    @property
    def test_inputs(self) -> Float[Tensor, "t f"]:
        """Inputs never trained on."""
        ...

    @property
    def test_labels(self) -> Int[Tensor, " t"]:
        """Their true labels."""
        ...

    @property
    def noisy(self) -> Float[Tensor, "t f"]:
        """The test inputs under noise."""
        ...

    @property
    def foreign(self) -> Float[Tensor, "u f"]:
        """Inputs that belong to no class."""
        ...

    def start(self, n: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Return n freshly drawn networks."""
        ...

    def batch(self, generator: torch.Generator) -> tuple[Float[Tensor, "b f"], Int[Tensor, " b"]]:
        """Return a random batch, the same for all members."""
        ...

    def outputs(self, parameters: Float[Tensor, "n d"], inputs: Float[Tensor, "b f"]) -> Float[Tensor, "n b k"]:
        """Return every network's logits, differentiable in the parameters."""
        ...


@dataclass(frozen=True)
class EnsembleConfig:
    """Settings of a run.

    `method`: plain | point | sum | max | linear. `reach`: the longest correction, in Adam steps; over the last `settle`
    of the steps it fades to nothing. `features`: others | softmax, in which diversity is measured. `weight`: of the
    energy in the method `linear`. `noise`: 0 to push apart on the training batch, else the standard deviation added to
    it. `kappa`: the share of a batch's decrease that a correction may spend, checked every `check_every` steps.
    `measures`: how often in a run the test set is asked.
    """

    members: int = 5
    steps: int = 1500
    rate: float = 2e-3
    method: str = "point"
    energy: str = "riesz0"
    features: str = "others"
    reach: float = 1.0
    weight: float = 0.1
    noise: float = 0.0
    kappa: float = 0.5
    settle: float = 0.2
    check_every: int = 10
    measures: int = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained(Snapshot):
    """n networks after a step, and all that is needed to go on: Adam's moments, the reach, the generator's state.

    `mean_losses`, `worst_losses`: over the members, on each step's batch. `measured`: the steps at which the test set
    was asked, with the ensemble's `accuracies` and the members' `disagreements` there. Of the last such step:
    `train_losses` on the whole training set, `member_accuracies`, and `distances`, the share of test inputs on which
    a member and its nearest other one differ. `scores`: of the finished ensemble.
    """

    parameters: Float[Tensor, "n d"]
    first: Float[Tensor, "n d"]
    second: Float[Tensor, "n d"]
    reach: Float[Tensor, " n"]
    random: Tensor
    mean_losses: Float[Tensor, " t"]
    worst_losses: Float[Tensor, " t"]
    measured: Int[Tensor, " k"]
    accuracies: Float[Tensor, " k"]
    disagreements: Float[Tensor, " k"]
    train_losses: Float[Tensor, " n"]
    member_accuracies: Float[Tensor, " n"]
    distances: Float[Tensor, " n"]
    scores: Scores | None = None


def ensemble(
    problem: EnsembleProblem, config: EnsembleConfig, generator: torch.Generator, start: Trained | None = None
) -> Run[Trained]:
    """Yield the drawn networks, then every step; `start` is a snapshot to go on from (ten steps are five and five).

    The generator is used up; its state travels in the snapshots.
    """
    now = _ended(problem, config, start if start is not None else _beginning(problem, config, generator))
    if len(now.parameters) != config.members:
        raise ValueError(f"members must stay {len(now.parameters)} when a run goes on, got {config.members}")
    yield now
    while now.step < config.steps:
        generator.set_state(now.random)
        now = _step(problem, config, generator, now)
        yield now


def output_features(
    outputs: Float[Tensor, "n b k"], labels: Int[Tensor, " b"], kind: str = "others"
) -> Float[Tensor, "n f"]:
    """Return each network's outputs on a batch as one vector: unit directions among the other classes, or softmaxes.

    Fewer than four classes leave the others no direction to turn in: then it is the softmaxes.
    """
    classes = outputs.shape[2]
    if kind == "softmax" or classes < 4:
        return outputs.softmax(dim=2).flatten(1)
    label = torch.nn.functional.one_hot(labels, classes).bool()
    mean = outputs.masked_fill(label, 0.0).sum(dim=2, keepdim=True) / (classes - 1)
    others = (outputs - mean).masked_fill(label, 0.0)
    return (others / (others.square().sum(dim=2, keepdim=True) + SOFT).sqrt()).flatten(1)


def _beginning(problem: EnsembleProblem, config: EnsembleConfig, generator: torch.Generator) -> Trained:
    parameters = problem.start(config.members, generator)
    empty, none = parameters.new_zeros(0), parameters.new_zeros(config.members)
    blank = Trained(
        step=0, total=config.steps, phase=config.method,
        parameters=parameters, first=torch.zeros_like(parameters), second=torch.zeros_like(parameters),
        reach=parameters.new_full((config.members,), config.reach), random=generator.get_state(),
        mean_losses=empty, worst_losses=empty, measured=torch.zeros(0, dtype=torch.long),
        accuracies=empty, disagreements=empty,
        train_losses=none, member_accuracies=none, distances=none,
    )  # fmt: skip
    return _measured(problem, blank)


def _step(problem: EnsembleProblem, config: EnsembleConfig, generator: torch.Generator, last: Trained) -> Trained:
    batch = problem.batch(generator)
    losses, slopes, pushes = _slopes(problem, config, generator, last.parameters, batch)
    moments, first, scale = adam_moments(slopes, (last.first, last.second), last.step + 1)
    parameters = last.parameters - config.rate * first / scale
    reach = last.reach
    if config.method in HARMLESS:
        delta = adam_correction(
            first, scale, pushes, slack_of(losses, config.method),
            fade(last.step, config.steps, config.settle) * reach, config.rate, config.method == "sum",
        )  # fmt: skip
        if last.step % config.check_every == 0:
            kept = _kept(problem, config, batch, (losses, parameters, parameters + delta))
            reach, delta = adjusted_reach(reach, kept, config.reach), torch.where(kept[:, None], delta, 0.0)
        parameters = parameters + delta
    now = replace(
        last, step=last.step + 1, total=config.steps, phase=config.method, outcome="", scores=None,
        parameters=parameters, first=moments[0], second=moments[1], reach=reach, random=generator.get_state(),
        mean_losses=torch.cat((last.mean_losses, losses.mean()[None])),
        worst_losses=torch.cat((last.worst_losses, losses.max()[None])),
    )  # fmt: skip
    due = now.step % max(1, config.steps // config.measures) == 0 or now.step == config.steps
    return _ended(problem, config, _measured(problem, now) if due else now)


def _slopes(
    problem: EnsembleProblem,
    config: EnsembleConfig,
    generator: torch.Generator,
    parameters: Float[Tensor, "n d"],
    batch: tuple[Tensor, Tensor],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Return the members' losses on a batch, the slopes Adam takes, and the gradients of the energy."""
    inputs, labels = batch
    leaf = parameters.detach().requires_grad_()
    outputs = problem.outputs(leaf, inputs)
    losses = _cross_entropy(outputs, labels)
    if config.method == "plain":
        (slopes,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), slopes, torch.zeros_like(slopes)
    if config.noise > 0:
        outputs = problem.outputs(leaf, inputs + config.noise * torch.randn(inputs.shape, generator=generator))
    crowding = energy(config.energy)(output_features(outputs, labels, config.features))
    if config.method == "linear":
        (slopes,) = torch.autograd.grad(losses.sum() + config.weight * crowding, leaf)
        return losses.detach(), slopes, torch.zeros_like(slopes)
    (slopes,) = torch.autograd.grad(losses.sum(), leaf, retain_graph=True)
    (pushes,) = torch.autograd.grad(crowding, leaf)
    return losses.detach(), slopes, clipped(pushes)


def _cross_entropy(outputs: Float[Tensor, "n b k"], labels: Int[Tensor, " b"]) -> Float[Tensor, " n"]:
    """Return each network's mean cross-entropy over a batch."""
    chosen = outputs.log_softmax(dim=2).gather(2, labels.expand(len(outputs), -1)[:, :, None])
    return -chosen.mean(dim=(1, 2))


@torch.no_grad()
def _kept(
    problem: EnsembleProblem, config: EnsembleConfig, batch: tuple[Tensor, Tensor], states: tuple[Tensor, ...]
) -> Tensor:
    """Return whose correction kept its budget; `states` are the losses before, the parameters predicted, corrected."""
    before, predicted, corrected = states
    after = [_cross_entropy(problem.outputs(part, batch[0]), batch[1]) for part in (predicted, corrected)]
    return within_budget(before, after[0], after[1], config.kappa, config.method)


@torch.no_grad()
def _measured(problem: EnsembleProblem, now: Trained) -> Trained:
    """Return the snapshot with the training and the test set asked once more."""
    test = problem.outputs(now.parameters, problem.test_inputs).softmax(dim=2)
    votes = test.argmax(dim=2)
    apart = disagreements(votes).fill_diagonal_(2.0)
    right = accuracy(test.double().mean(dim=0), problem.test_labels)
    return replace(
        now,
        measured=torch.cat((now.measured, torch.tensor([now.step]))),
        accuracies=torch.cat((now.accuracies, torch.tensor([right]))),
        disagreements=torch.cat((now.disagreements, torch.tensor([disagreement(votes)]))),
        train_losses=_cross_entropy(problem.outputs(now.parameters, problem.inputs), problem.labels),
        member_accuracies=(votes == problem.test_labels).float().mean(dim=1),
        distances=apart.amin(dim=1).float(),
    )


@torch.no_grad()
def _ended(problem: EnsembleProblem, config: EnsembleConfig, now: Trained) -> Trained:
    """Return the snapshot as it stands in a run of `config.steps`: the last one carries its scores and a sentence."""
    if now.step < config.steps:
        return replace(now, total=config.steps, outcome="", scores=None)
    test, noisy, foreign = (
        problem.outputs(now.parameters, inputs).softmax(dim=2)
        for inputs in (problem.test_inputs, problem.noisy, problem.foreign)
    )
    losses = _cross_entropy(problem.outputs(now.parameters, problem.inputs), problem.labels)
    scores = ensemble_scores(losses, test, problem.test_labels, noisy, foreign)
    return replace(now, total=max(now.step, config.steps), scores=scores, outcome=_sentence(scores))


def _sentence(scores: Scores) -> str:
    return (
        f"{scores.accuracy:.1%} right (NLL {scores.nll:.3f}, calibration error {scores.ece:.1%}); members differ on "
        f"{scores.disagreement:.1%}; {scores.noise_accuracy:.1%} right under noise; "
        f"foreign inputs told with AUROC {scores.foreign_auroc:.3f}"
    )
