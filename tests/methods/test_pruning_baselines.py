"""Scores of single channels against plain computations, and the order in which vertices are kept."""

import pytest
import torch
import torch.nn.functional as F
from networks import conv, example, pictures, settled
from torch import nn

from studio.methods.pruning_baselines import BASELINES, baseline_order, scores
from studio.nets.contributions import gated
from studio.nets.spaces import trace


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def convolutional():
    network = settled(nn.Sequential(
        conv(3, 5), nn.BatchNorm2d(5), nn.ReLU(), conv(5, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 6), nn.ReLU(), nn.Linear(6, 3),
    ))  # fmt: skip
    return network, trace(network, pictures(2))


def batches(count=3, classes=3):
    labels = torch.randint(classes, (count, 4), generator=generator(5))
    return [(pictures(4, seed=seed), labels[seed]) for seed in range(count)]


def scored(network, spaces, method, given=(), seed=0):
    return scores(network, spaces, method, given, F.cross_entropy, generator(seed))


def test_magnitude_is_the_norm_of_a_channels_own_weights():
    network, spaces = convolutional()
    found = scored(network, spaces, "magnitude")
    for space, layer in zip(spaces.growable, (0, 3, 7), strict=True):
        for channel, score in enumerate(found[space].tolist()):
            assert score == pytest.approx(float(network[layer].weight[channel].detach().norm()))


def test_magnitude_counts_every_layer_that_writes_a_tied_space():
    network, _, spaces = example("residual")
    space = next(space for space in spaces.growable if len(spaces[space].writers) == 2)
    found = scored(network, spaces, "magnitude")[space]
    for channel in range(4):
        both = torch.cat([network.stem.weight[channel].flatten(), network.two.weight[channel].flatten()])
        assert float(found[channel]) == pytest.approx(float(both.detach().norm()))


def test_batchnorm_is_the_size_of_the_scale():
    network = settled(nn.Sequential(
        conv(3, 5), nn.BatchNorm2d(5), nn.ReLU(), conv(5, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 3),
    ))  # fmt: skip
    spaces = trace(network, pictures(2))
    found = scored(network, spaces, "batchnorm")
    for space, norm in zip(spaces.growable, (1, 4), strict=True):
        assert torch.allclose(found[space], network[norm].weight.detach().abs())
    with pytest.raises(ValueError, match=r"needs a batch norm, and .* has none: choose another"):
        scored(*convolutional(), "batchnorm")


def test_taylor_is_the_squared_slope_of_a_channels_gate():
    """Against central differences of the loss in one gate at a time; the mean over batches orders as their sum does."""
    network, spaces = convolutional()
    given = batches()
    found = scored(network, spaces, "taylor", given)
    h = 1e-4
    for space in spaces.growable:
        for channel in range(spaces[space].size):
            total = 0.0
            for inputs, labels in given:
                values = []
                for step in (h, -h):
                    gates = torch.ones(spaces[space].size, dtype=torch.float64)
                    gates[channel] += step
                    with gated(network, spaces, {space: gates}), torch.no_grad():
                        values.append(float(F.cross_entropy(network(inputs), labels)))
                total += ((values[0] - values[1]) / (2 * h)) ** 2
            # Gates are float32, and so are their slopes.
            assert float(found[space][channel]) == pytest.approx(total, rel=1e-4, abs=1e-9)


def test_taylor_leaves_the_network_as_it_was():
    network, spaces = convolutional()
    network.train()
    before = [part.clone() for part in network.state_dict().values()]
    scored(network, spaces, "taylor", batches(1))
    assert network.training and all(part.grad is None for part in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))


def test_random_scores_follow_the_generator():
    network, spaces = convolutional()
    first, same, other = (scored(network, spaces, "random", seed=seed) for seed in (0, 0, 1))
    for space in spaces.growable:
        assert torch.equal(first[space], same[space]) and not torch.equal(first[space], other[space])
        assert len(first[space].unique()) == spaces[space].size


def test_every_baseline_scores_every_channel():
    network, spaces = convolutional()
    for method in set(BASELINES) - {"batchnorm"}:
        found = scored(network, spaces, method, batches(1))
        assert {space: len(score) for space, score in found.items()} == {
            space: spaces[space].size for space in spaces.growable
        }
    with pytest.raises(ValueError, match="method must be one of magnitude"):
        scored(network, spaces, "magic")


def test_vertices_are_kept_from_the_highest_score_down_and_groups_score_together():
    score = torch.tensor([3.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert baseline_order(score, torch.arange(4)[:, None]).tolist() == [0, 3, 2, 1]
    members = torch.tensor([[0, 2], [1, 3]])
    assert baseline_order(score, members).tolist() == [0, 1]
    assert baseline_order(-score, members).tolist() == [1, 0]
