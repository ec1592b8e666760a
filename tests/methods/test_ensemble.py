"""Ensembles: one batched computation, a run that can go on, and diversity that costs no training loss."""

import dataclasses
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.func import functional_call, vmap

from studio.core.runs import last, record
from studio.core.seeds import generator_from
from studio.methods.ensemble import EnsembleConfig, EnsembleProblem, ensemble, output_features
from studio.methods.harmless_adam import adam_moments
from studio.nets.mlp import mlp_outputs, mlp_parameters, mlp_start
from studio.problems.classification import classification
from studio.problems.digits import labelled

HARMLESS = ("point", "sum", "max")


def digits(seed=0, count=60, width=12, batch=30):
    return classification(labelled("digits"), seed, count, 0.1, (width, width), batch)


@cache
def larger(method):
    """A problem and the end of a run of a tenth of the acceptance's, shared by the tests."""
    problem = digits(count=200, width=32, batch=50)
    return problem, last(trained(problem, method=method, members=4, steps=250, rate=3e-3))


def trained(problem=None, seed=0, **settings):
    settings = {"members": 3, "steps": 40, "rate": 5e-3} | settings
    return ensemble(problem or digits(), EnsembleConfig(**settings), generator_from(seed, "ensemble"))


def test_the_stack_is_the_networks_one_by_one():
    """The batched product equals PyTorch's own layers under `vmap`, and each row depends on its own network only."""
    sizes = (6, 5, 4, 3)
    stack, inputs = mlp_start(4, sizes, generator_from(0, "stack")), torch.randn(7, 6)
    stack = stack + 0.1 * torch.randn(stack.shape, generator=generator_from(0, "biases"))
    layers = [torch.nn.Linear(a, b) for a, b in ((6, 5), (5, 4), (4, 3))]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])

    def one(row):
        named, at = {}, 0
        for name, parameter in network.named_parameters():
            part = row[at : at + parameter.numel()]
            named[name] = part.view(parameter.shape[::-1]).T if parameter.ndim == 2 else part
            at += parameter.numel()
        return functional_call(network, named, (inputs,))

    assert stack.shape == (4, mlp_parameters(sizes))
    assert torch.allclose(mlp_outputs(stack, inputs, sizes), vmap(one)(stack), atol=1e-6)


def test_the_problem_is_what_the_method_asks_for():
    assert isinstance(digits(), EnsembleProblem)


def test_plain_members_go_their_own_way_by_adam():
    """Each member of the plain ensemble goes where Adam takes it alone on PyTorch's own cross-entropy."""
    problem = digits()
    end = last(trained(problem, method="plain", steps=5))
    for member in range(3):
        draws = generator_from(0, "ensemble")
        row = problem.start(3, draws)[member : member + 1]
        moments = (torch.zeros_like(row), torch.zeros_like(row))
        for step in range(1, 6):
            inputs, labels = problem.batch(draws)
            leaf = row.clone().requires_grad_()
            loss = torch.nn.functional.cross_entropy(problem.outputs(leaf, inputs)[0], labels)
            moments, first, scale = adam_moments(torch.autograd.grad(loss, leaf)[0], moments, step)
            row = row - 5e-3 * first / scale
        assert torch.allclose(end.parameters[member], row[0], atol=1e-6)


@pytest.mark.parametrize("method", [*HARMLESS, "plain", "linear"])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_ten_steps_are_five_and_five(method, noise):
    problem, settings = digits(), {"method": method, "noise": noise, "steps": 10, "check_every": 3}
    snapshots = record(trained(problem, **settings))
    config = EnsembleConfig(members=3, rate=5e-3, **settings)
    resumed = record(ensemble(problem, config, generator_from(99, "other"), start=snapshots[5]))
    assert len(resumed) == 6
    for name in (field.name for field in dataclasses.fields(snapshots[10])):
        ours, theirs = getattr(resumed[-1], name), getattr(snapshots[10], name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, name


def test_a_finished_run_can_be_made_longer():
    problem, snapshots = digits(), record(trained(steps=6))
    longer = EnsembleConfig(members=3, rate=5e-3, steps=9)
    more = record(ensemble(problem, longer, generator_from(0, "ensemble"), start=snapshots[-1]))
    assert [s.step for s in more] == [6, 7, 8, 9] and [bool(s.outcome) for s in more] == [False] * 3 + [True]
    assert more[0].scores is None and all(s.total == 9 for s in more)
    with pytest.raises(ValueError, match="members must stay 3"):
        next(ensemble(problem, replace(longer, members=4), generator_from(0, "ensemble"), start=snapshots[-1]))


def test_no_reach_is_the_plain_run():
    plain, none = last(trained(method="plain")), last(trained(method="point", reach=0.0))
    assert torch.equal(plain.parameters, none.parameters) and plain.scores == none.scores


@pytest.mark.parametrize("method", HARMLESS)
def test_the_energy_falls_and_the_training_loss_does_not_pay(method):
    """A tenth of the acceptance run: members further apart in what they rank second, at no more training loss."""
    (problem, plain), (_, spread) = larger("plain"), larger(method)

    def gap(end):
        outputs = problem.outputs(end.parameters, problem.inputs)
        return torch.pdist(output_features(outputs, problem.labels)).mean()

    assert gap(spread) > 1.1 * gap(plain)
    assert spread.scores.train_loss <= plain.scores.train_loss + 0.01
    assert spread.scores.disagreement > plain.scores.disagreement
    assert (spread.reach <= 1).all() and (spread.reach > 0).all()


def test_offenders_are_held_back():
    """With a budget of nothing, checked at every step of a rate that overshoots, reaches fall; unchecked, none does."""
    held = last(trained(kappa=0.0, check_every=1, rate=0.05, method="point"))
    unchecked = record(trained(kappa=0.0, check_every=10**6, rate=0.05, method="point"))
    assert held.reach.min() < 0.5
    assert all(torch.equal(snapshot.reach, unchecked[1].reach) for snapshot in unchecked[2:])


def test_features_of_the_other_classes_ignore_the_label():
    """Turning the label's logit, or shifting all of them, changes nothing; each example's vector has length 1."""
    outputs = torch.randn(3, 20, 10, generator=generator_from(0, "outputs"), dtype=torch.float64)
    labels = torch.arange(20) % 10
    features = output_features(outputs, labels)
    turned = outputs + 5 * torch.nn.functional.one_hot(labels, 10) + torch.arange(20)[:, None]
    assert torch.allclose(output_features(turned, labels), features, atol=1e-9)
    assert torch.allclose(features.unflatten(1, (20, 10)).norm(dim=2), torch.ones(3, 20).double())
    assert torch.autograd.gradcheck(lambda x: output_features(x, labels), outputs.requires_grad_())


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_fall_back_to_softmax(classes):
    outputs = torch.randn(2, 6, classes)
    assert torch.equal(output_features(outputs, torch.zeros(6).long()), outputs.softmax(dim=2).flatten(1))


@pytest.mark.slow
def test_the_acceptance_of_digits():
    """F33 and F34 at their full size on two seeds (the benchmark measures five)."""
    rows = []
    for seed in range(2):
        problem = classification(labelled("digits"), seed, 400, 0.1, (64, 64), 100)
        arms = ({"method": "plain"}, {"method": "point"}, {"method": "point", "noise": 0.5})
        ends = [last(ensemble(problem, EnsembleConfig(**arm), generator_from(seed, "ensemble"))) for arm in arms]
        rows.append([end.scores for end in ends])
    mean = [
        {name: sum(getattr(row[i], name) for row in rows) / len(rows) for name in ("train_loss", "accuracy",
         "disagreement", "noise_accuracy")} for i in range(3)
    ]  # fmt: skip
    plain, point, control = mean
    assert point["train_loss"] <= plain["train_loss"] + 0.005 and point["accuracy"] >= plain["accuracy"] - 0.005
    assert point["disagreement"] >= 1.04 * plain["disagreement"]
    assert abs(point["noise_accuracy"] - plain["noise_accuracy"]) <= 0.02
    assert control["noise_accuracy"] < plain["noise_accuracy"] - 0.02
