"""What the growing methods share: items in groups, splits that do what they say, predictions, and clear refusals."""

import pytest
import torch
from networks import conv, difference, example, made, pictures, plan, settled, squared
from torch import nn

from studio.methods.curvature import Curvature, curvatures, extremes
from studio.methods.growth import (
    Planned,
    changes_of,
    fresh_neurons,
    items,
    measured,
    places,
    predicted,
    rows,
    scored,
)
from studio.nets.costs import marginal_costs
from studio.nets.spaces import trace
from studio.nets.surgery import widened


def test_items_are_neurons_or_one_of_each_group():
    every = [made([-1.0, -3.0, -2.0], cost=5.0), made([-4.0, 0.0, -1.0, -2.0], cost=2.0, groups=2, space=1)]
    found, gains, costs = items(every, [each.spectrum.low / 2 for each in every])
    assert [(item.scored.space, item.neurons) for item in found] == [
        (0, (0,)), (0, (1,)), (0, (2,)), (1, (0, 3)), (1, (1, 2)),
    ]  # fmt: skip
    assert gains.tolist() == [-0.5, -1.5, -1.0, -3.0, -0.5] and costs.tolist() == [5.0, 5.0, 5.0, 4.0, 4.0]
    home, caps = places(every, [2, 3])
    assert home.tolist() == [0, 0, 0, 1, 1] and caps.tolist() == [2, 1]


def test_plans_become_changes_copy_by_copy():
    network, inputs, spaces = example("perceptron")
    first, second = plan(0, 3, 193, (1.0, 1.0, -1.0)), plan(0, 1, 193, (0.25, 0.75), 1)
    change = changes_of(spaces, [first, second], 0.5)[0]
    assert change.src.tolist() == [0, 1, 2, 3, 4, 5, 1, 3, 3]
    assert change.coef.tolist() == [1, 0.25, 1, 1, 1, 1, 0.75, 1, -1]
    wanted = torch.zeros(9, 193, dtype=torch.float64)
    wanted[1], wanted[6], wanted[3], wanted[7], wanted[8] = (0.5 * row for row in (*second.moves, *first.moves))
    assert torch.equal(change.delta, wanted)
    grown, _ = widened(network, spaces, {0: change})
    assert torch.equal(grown[1].weight[7], network[1].weight[3] + 0.5 * first.moves[1, :-1])
    assert torch.equal(grown[1].bias[8], network[1].bias[3] + 0.5 * first.moves[2, -1])
    still, _ = widened(network, spaces, changes_of(spaces, [first, second], 0.0))
    assert difference(still, network, inputs) <= 1e-12


def test_one_neuron_is_not_split_twice_in_a_round():
    _, _, spaces = example("perceptron")
    with pytest.raises(ValueError, match="a neuron can be split once in a round: plan three or four copies of it as"):
        changes_of(spaces, [plan(0, 3, 193), plan(1, 3, 6), plan(0, 3, 193, seed=2)], 0.1)
    assert set(changes_of(spaces, [plan(0, 3, 193), plan(1, 3, 6)], 0.1)) == {0, 1}
    assert changes_of(spaces, [], 0.1) == {}


@pytest.mark.parametrize("name", ["depthwise", "dense", "smooth groups"])
def test_predictions_are_what_splits_do(name):
    """Any weights and moves of mean zero, in several layers: the change is eps^2 times the sum of the gains."""
    if name == "smooth groups":
        layers = conv(3, 4), nn.SiLU(), conv(4, 6, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(384, 4)
        network, inputs = settled(nn.Sequential(*layers)), pictures()
        spaces = trace(network, inputs)
    else:
        network, inputs, spaces = example(name)
    loss = squared(inputs)
    every = curvatures(network, spaces, inputs, loss)
    plans = [
        plan(each.space, neuron, each.size[1], (0.7, 0.6, -0.3), neuron)
        for each in every for neuron in range(each.size[0])
    ]  # fmt: skip
    gains = predicted(plans, every)
    eps = 3e-5
    parts = measured(network, spaces, plans, range(len(plans)), eps, inputs, loss)
    for gain, part in zip(gains, parts, strict=True):
        assert part / eps**2 == pytest.approx(gain, rel=0.02, abs=1e-3 * max(map(abs, gains)))
    grown, _ = widened(network, spaces, changes_of(spaces, plans, eps))
    with torch.no_grad():
        together = float(loss(grown(inputs)) - loss(network(inputs)))
    assert together / eps**2 == pytest.approx(sum(gains), rel=0.03)
    assert predicted(plans[:1], ()) == [0.0] and predicted([], every) == []


def test_gains_are_half_of_the_weighted_quadratic_forms():
    matrix = torch.diag(torch.tensor([-2.0, 6.0, 1.0], dtype=torch.float64))
    curvature = Curvature(3, "x", (2, 3), False, torch.zeros(()).double(), lambda v: v @ matrix)
    moves = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 0]], dtype=torch.float64)
    plans = [Planned(3, 1, "a", (0.5, -0.25, 0.75), moves, 0.0), Planned(3, 0, "b", (0.5, 0.5), moves[:2], 0.0)]
    assert predicted(plans, [curvature]) == [0.5 * (-1 - 6), 0.5 * (-1 + 12)]


def test_scoring_knows_spaces_costs_and_groups():
    network, inputs, spaces = example("grouped")
    costs = marginal_costs(network, spaces, inputs)
    generator = torch.Generator().manual_seed(0)
    every = scored(network, spaces, inputs, squared(inputs), costs, lambda each: extremes(each, generator))
    assert [(each.space, each.cost, each.groups) for each in every] == [
        (space, costs[space], spaces[space].groups) for space in spaces.splittable
    ]
    assert [len(each.spectrum.low) for each in every] == [4, 6, 6, 3]


def test_fresh_neurons_are_like_those_there_are():
    network, inputs, spaces = example("pooled")
    found = fresh_neurons(network, spaces, {0: 400, 2: 1}, 0.2, torch.Generator().manual_seed(0))
    change = found[0]
    assert change.src.tolist() == [0, 1, 2, 3, *[-1] * 400] and bool((change.coef == 1).all())
    assert bool((change.delta[:4] == 0).all()) and bool((change.delta[:, -1] == 0).all())
    assert float(change.delta[4:, :-1].std()) == pytest.approx(
        float(network[0].weight.detach().square().mean()) ** 0.5, rel=0.03
    )
    quiet = fresh_neurons(network, spaces, {0: 3, 1: 2}, 0.0, torch.Generator().manual_seed(0))
    grown, _ = widened(network, spaces, quiet)
    assert difference(grown, network, inputs) <= 1e-12 and grown[0].out_channels == 7
    grouped, inputs, spaces = example("grouped")
    quiet = fresh_neurons(grouped, spaces, {0: 2, 2: 6}, 0.0, torch.Generator().manual_seed(0))
    assert quiet[0].src.tolist() == [0, 1, -1, 2, 3, -1]
    grown, _ = widened(grouped, spaces, quiet)
    assert difference(grown, grouped, inputs) <= 1e-12


def test_rows_count_the_bias():
    network, _, spaces = example("pooled")
    assert [rows(network, spaces, space)[1] for space in range(3)] == [28, 36, 46]


def test_measuring_changes_nothing():
    network, _, spaces = example("pooled")
    inputs = pictures(4)
    state = {key: part.clone() for key, part in network.state_dict().items()}
    found = measured(network, spaces, [plan(0, 0, 28), plan(1, 0, 36)], [1], 0.1, inputs, squared(inputs))
    assert len(found) == 1 and found[0] != 0 and isinstance(network, nn.Module)
    assert all(torch.equal(part, state[key]) for key, part in network.state_dict().items())
