"""What growing is compared with: random choices within budget and caps, copies with noise, new neurons."""

import pytest
import torch
from networks import difference, example

from studio.methods.growth import changes_of, fresh_neurons
from studio.methods.growth_baselines import net2net, new_neurons, random_choice, random_splits
from studio.nets.surgery import widened


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_random_choices_keep_to_budget_and_caps_without_repeats():
    _, _, spaces = example("dense")
    costs, caps = {0: 1.0, 1: 2.5, 2: 1.0}, {0: 1, 1: 9, 2: 9}
    for seed in range(30):
        taken = random_choice(spaces, costs, 6.0, caps, generator(seed))
        spent = sum(costs[space] * len(neurons) for space, neurons in taken)
        assert spent <= 6 + 1e-9 and len(set(taken)) == len(taken)
        assert sum(space == 0 for space, _ in taken) <= 1
        left = {space: len([1 for s, _ in taken if s == space]) for space in costs}
        room = 6 - spent
        full = {0: left[0] >= 1, 1: left[1] >= 4, 2: left[2] >= 3}
        assert all(full[space] or costs[space] > room for space in costs), "nothing that fits is left out"
    firsts = {random_choice(spaces, costs, 1.0, caps, generator(seed))[0] for seed in range(40)}
    assert firsts == {(0, (k,)) for k in range(3)} | {(2, (k,)) for k in range(3)}


def test_random_choices_take_one_of_each_group():
    _, _, spaces = example("grouped")
    for seed in range(10):
        taken = random_choice(spaces, {0: 1.0, 2: 1.0}, 8.0, {0: 3, 2: 12}, generator(seed))
        for space, neurons in taken:
            block = spaces[space].size // spaces[space].groups
            assert [neuron // block for neuron in neurons] == list(range(spaces[space].groups))
        assert sum(space == 0 for space, _ in taken) <= 1


def test_random_splits_go_one_step_both_ways():
    network, inputs, spaces = example("pooled")
    plans = random_splits(network, spaces, [(0, (1,)), (2, (0,))], generator())
    assert [(plan.space, plan.neuron, plan.coef, plan.gain) for plan in plans] == [
        (0, 1, (0.5, 0.5), 0.0), (2, 0, (0.5, 0.5), 0.0),
    ]  # fmt: skip
    for plan, d in zip(plans, (28, 46), strict=True):
        assert plan.moves.shape == (2, d) and torch.equal(plan.moves[0], -plan.moves[1])
        assert float(plan.moves[0].norm()) == pytest.approx(1)
    grown, _ = widened(network, spaces, changes_of(spaces, plans, 1e-7))
    assert difference(grown, network, inputs) <= 1e-9


def test_net2net_copies_with_noise_that_does_not_depend_on_eps():
    network, _, spaces = example("pooled")
    choice = [(1, (0,)), (1, (3,))]
    for eps in (0.1, 0.01):
        plans = net2net(network, spaces, choice, 0.05, eps, generator())
        assert all(bool((plan.moves[0] == 0).all()) and plan.coef == (0.5, 0.5) for plan in plans)
        grown, _ = widened(network, spaces, changes_of(spaces, plans, eps))
        assert torch.equal(grown[4].weight[[0, 3]], network[4].weight[[0, 3]])
        noise = (grown[4].weight[5:] - network[4].weight[[0, 3]]).detach()
        size = 0.05 * float(network[4].weight.detach().square().mean().sqrt())
        assert float(noise.square().mean().sqrt()) == pytest.approx(size, rel=0.25)


def test_new_neurons_are_as_many_as_were_chosen():
    counts = new_neurons([(0, (1,)), (2, (0, 1)), (0, (2,)), (2, (2, 3))])
    assert counts == {0: 2, 2: 4}
    network, inputs, spaces = example("pooled")
    grown, _ = widened(network, spaces, fresh_neurons(network, spaces, {0: 2}, 0.0, generator()))
    assert difference(grown, network, inputs) <= 1e-12
