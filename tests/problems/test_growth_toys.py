"""The toys to grow on: their formulas, their optima, and what they hold out."""

import pytest
import torch

from studio.core.seeds import generator_from
from studio.problems.growth_toys import TOYS, growth_toy


def fitted(problem, widths, iterations=200, seed=0):
    """A network trained by L-BFGS and its last loss."""
    network = problem.network(widths, generator_from(seed, "net"))
    optimiser = torch.optim.LBFGS(
        network.parameters(), max_iter=iterations, tolerance_grad=1e-12, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimiser.zero_grad()
        loss = problem.loss(network(problem.inputs), problem.targets)
        loss.backward()
        return loss

    optimiser.step(closure)
    return network, float(closure().detach())


def test_one_bump_trains_to_the_known_minimum():
    problem = growth_toy("bump", 0)
    network, loss = fitted(problem, None)
    assert loss == pytest.approx(4.8699e-3, abs=1e-7)
    slope, shift, height = (value.item() for value in network.parameters())
    assert abs(shift) < 1e-6 and slope == pytest.approx(1.3613, abs=1e-3) and height == pytest.approx(1.5655, abs=1e-3)
    assert problem.accuracy(network) == pytest.approx(0.98133, abs=1e-4)


def test_the_bump_and_its_seed_are_their_formulas():
    problem = growth_toy("bump", 5)
    assert problem.inputs.shape == (1001, 1) and problem.inputs.dtype == torch.float64
    assert (problem.inputs.min(), problem.inputs.max()) == (-5, 5)
    at = int((problem.inputs - 1.2).abs().argmin())
    assert problem.targets[500].item() == pytest.approx(2 - 0.48675225595997157, rel=1e-12)
    assert problem.targets[at].item() == pytest.approx(2 * 0.48675225595997157 - 0.5 - 0.5 * 0.05613476283, rel=1e-9)
    seed = problem.network(None, generator_from(0, "net"))
    assert torch.allclose(seed(problem.inputs), (-problem.inputs.square() / 2).exp())
    held = {round(x, 9) for x in problem.test_inputs.flatten().tolist()}
    assert not held & {round(x, 9) for x in problem.inputs.flatten().tolist()}


@pytest.mark.parametrize("name", ["bumps", "teacher"])
def test_random_targets_are_seeded_and_of_unit_size(name):
    one, same, other = (growth_toy(name, seed) for seed in (1, 1, 2))
    assert torch.equal(one.targets, same.targets) and torch.equal(one.inputs, same.inputs)
    assert not torch.equal(one.inputs, other.inputs) and not torch.equal(one.target, other.target)
    assert one.targets.std(correction=0).item() == pytest.approx(1, rel=1e-9)
    assert one.examples == len(one.inputs) == 1000 and one.targets.dtype == torch.float64
    drawn = [one.network(None, generator_from(seed, "net"))(one.example) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_teacher_is_out_of_reach_of_two_units_and_in_reach_of_six():
    problem = growth_toy("teacher", 1)
    small, loss = fitted(problem, None, 60)
    assert loss > 0.03 and 0.5 < problem.accuracy(small) < 0.97
    large, loss = fitted(problem, (6,), 150)
    assert loss < 1e-6 and problem.accuracy(large) > 0.9999
    assert problem.grid.shape == (41 * 41, 2) and problem.network(None, generator_from(0, "x")).head.in_features == 2
    with torch.no_grad():
        assert torch.allclose(large(problem.grid), problem.target, atol=0.05)


def test_more_bumps_fit_better():
    problem = growth_toy("bumps", 1)
    losses = [fitted(problem, widths, 80)[1] for widths in ((1,), (3,), (8,))]
    assert losses[0] > 0.1 > losses[1] > losses[2]


@pytest.mark.parametrize("name", TOYS)
def test_r_squared_is_one_for_the_target_and_zero_for_its_mean(name):
    problem = growth_toy(name, 0)

    class Answers(torch.nn.Module):
        def __init__(self, values):
            super().__init__()
            self.values = values

        def forward(self, inputs):
            return self.values

    assert problem.accuracy(Answers(problem.test_targets)) == 1
    assert problem.accuracy(Answers(problem.test_targets.mean().expand(len(problem.test_targets), 1))) == 0
    assert problem.accuracy(Answers(problem.test_targets + 9)) < 0


@pytest.mark.parametrize("name", TOYS)
def test_every_batch_is_everything(name):
    problem = growth_toy(name, 0)
    for inputs, targets in (problem.batch(0), problem.batch(9), problem.probe(0), problem.probe(3)):
        assert inputs is problem.inputs and targets is problem.targets
    assert problem.shape == tuple(problem.example.shape[1:]) and problem.classes == ()
    outputs = problem.targets + 0.5
    assert problem.loss(outputs, problem.targets).item() == pytest.approx(0.25)
    assert problem.to(torch.device("meta")).grid.device.type == "meta"


def test_an_unknown_toy_is_refused():
    with pytest.raises(ValueError, match="toy must be one of bump, bumps, teacher, got 'spike'"):
        growth_toy("spike", 0)
