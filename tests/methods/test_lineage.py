"""Lineage: who came from whom, with which share, through copies, new neurons, blocks and drops."""

import torch
from networks import difference, example, pictures, plan

from studio.methods.growth import changes_of
from studio.methods.lineage import edits_of, first_generation, next_generation
from studio.nets.families import mlp
from studio.nets.spaces import trace
from studio.nets.surgery import NEW, Change, drop, replayed, widen, widened


def test_ids_run_through_all_spaces():
    one, two = first_generation((3, 2))
    assert one.ids.tolist() == [0, 1, 2] and two.ids.tolist() == [3, 4]
    assert two.parents.tolist() == [-1, -1] and two.born.tolist() == [0, 0] and two.shares.tolist() == [1, 1]


def test_first_copies_keep_their_ids_and_shares_multiply():
    change = Change(torch.tensor([0, 1, 2, 1, NEW, 1]), torch.tensor([1, 0.5, 1, 1.5, 1, -1]).double())
    now = next_generation(first_generation((3,))[0], change, 1, 10)
    assert now.ids.tolist() == [0, 1, 2, 10, 11, 12] and now.parents.tolist() == [-1, -1, -1, 1, -1, 1]
    assert now.born.tolist() == [0, 0, 0, 1, 1, 1] and now.shares.tolist() == [1, 0.5, 1, 1.5, 1, -1]
    change = Change(torch.tensor([0, 1, 2, 3, 4, 5, 3]), torch.tensor([1, 1, 1, 0.5, 1, 1, 0.5]).double())
    then = next_generation(now, change, 2, 13)
    assert then.ids.tolist() == [0, 1, 2, 10, 11, 12, 13] and then.parents[-1] == 10 and then.born[-1] == 2
    assert then.shares.tolist() == [1, 0.5, 1, 0.75, 1, -1, 0.75]
    family = then.shares[[1, 3, 5, 6]]
    assert float(family.sum()) == 1 and float(family.abs().sum()) == 3


def test_blocks_and_drops():
    _, _, spaces = example("grouped")
    start = first_generation((4,))[0]
    change = widen(0, {1: (0.5, 0.5), 2: (0.5, 0.5)}, spaces)
    now = next_generation(start, change, 1, 4)
    assert now.ids.tolist() == [0, 1, 4, 2, 3, 5] and now.parents.tolist() == [-1, -1, 1, -1, -1, 2]
    less = next_generation(now, drop(6, (0, 4)), 2, 6)
    assert less.ids.tolist() == [1, 4, 2, 5] and less.born.tolist() == [0, 1, 0, 1]


def test_a_network_can_be_grown_again_from_its_changes():
    seed, inputs = mlp(192, (3, 2), 4, "silu").double(), pictures()
    with torch.no_grad():
        for part in seed.parameters():
            part.normal_(generator=torch.Generator().manual_seed(0))

    def spaces_of(network):
        return trace(network, inputs[:2])

    network, kept = seed, []
    for round in (1, 2):
        spaces = spaces_of(network)
        plans = [plan(0, 1, 193), *([plan(1, 0, 4 if round == 1 else 5)])]
        for space, change in changes_of(spaces, plans, 0.0).items():
            kept.append((round, space, change))
        network, _ = widened(network, spaces, {space: change for at, space, change in kept if at == round})
    again = replayed(seed, edits_of(seed, spaces_of, *map(list, zip(*kept, strict=True))))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))
    assert difference(again, seed, inputs) <= 1e-12 and again.layer1.out_features == 5
