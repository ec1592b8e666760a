"""Growth and pruning in turn: the budget and the ceiling kept, the same bytes from anywhere, honest lineages."""

from dataclasses import replace
from functools import cache
from itertools import islice, pairwise

import pytest
import torch

from studio.core.seeds import generator_from
from studio.core.snapshots import MAX_BYTES
from studio.files.frames import snapshot_bytes, snapshot_from
from studio.methods.firefly import FireflyConfig
from studio.methods.forward_selection import RULES
from studio.methods.grow_and_prune import (
    PLANS,
    GrowAndPruneConfig,
    Reshaped,
    grow_and_prune,
    largest,
    moves,
    total_steps,
)
from studio.methods.grow_and_prune_budget import UNITS, CutConfig, costs_of, cut_to, scaled, share_for, widths_cost
from studio.methods.growing import grown_network
from studio.methods.growing_state import network_of, spaces_of
from studio.methods.growth_round import GrowthConfig
from studio.methods.lineage import given
from studio.nets.costs import COUNTERS
from studio.nets.network_files import load_network, network_bytes
from studio.nets.surgery import NEW, replayed, resized
from studio.problems.growth_images import growth_images

GROWTH = GrowthConfig(rate=0.02, measures=1, firefly=FireflyConfig(layers=1, steps=4, refined=2))
FAMILIES = ("mlp", "vgg", "mobilenet")


@cache
def pictures(family="vgg"):
    return growth_images("digits", family, "silu", "average", 80, 40, 0)


def configured(family="vgg", times=2.0, unit="energy", method="s2d", **more):
    problem = pictures(family)
    first = COUNTERS[unit](problem.network(None, generator_from(0, "x")), problem.example)
    settings = {"cycles": 2, "rounds": 2, "stage": 2, "last": 2, "cut": CutConfig(40, 4)} | more
    return GrowAndPruneConfig(times * first, unit=unit, growth=replace(GROWTH, method=method), **settings)


@cache
def kept(family="vgg", plan="both", unit="energy", method="s2d"):
    """A run that the tests share."""
    config = configured(family, unit=unit, method=method, plan=plan)
    return config, list(grow_and_prune(pictures(family), config, generator_from(0, "run")))


def trained(family, widths):
    """A network whose batch norms have seen something."""
    network = pictures(family).network(widths, generator_from(1, "trained")).train()
    for step in range(4):
        network(pictures(family).batch(step)[0])
    return network.eval()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_cost_of_widths_is_the_cost_of_the_network_that_has_them(family, unit):
    problem = pictures(family)
    network = problem.network(None, generator_from(0, "x"))
    spaces = spaces_of(problem, network)
    cost = widths_cost(network, spaces, problem.example, unit)
    for change in (-1, 0, 3):
        widths = tuple(width + change for width in spaces.widths)
        other = resized(network, problem.spaces(network), widths)
        wanted = COUNTERS[unit](other, problem.example)
        assert cost(dict(zip(spaces.growable, widths, strict=True))) == pytest.approx(wanted, rel=1e-12)


def test_a_share_reaches_its_cost_and_scaled_widths_fill_theirs():
    problem = pictures("vgg")
    network = problem.network(None, generator_from(0, "x"))
    spaces = spaces_of(problem, network)
    cost = widths_cost(network, spaces, problem.example, "macs")
    share = share_for(cost, spaces, 3 * cost({}))
    wider = {space: spaces[space].size * (1 + share) for space in spaces.growable}
    assert cost(wider) == pytest.approx(3 * cost({}), rel=1e-9) and share_for(cost, spaces, 0.5 * cost({})) == 0
    widths = scaled(problem, "macs", 3 * cost({}))
    assert cost(dict(zip(spaces.growable, widths, strict=True))) <= 3 * cost({})
    larger = {space: width + 1 for space, width in zip(spaces.growable, widths, strict=True)}
    assert cost(larger) > 3 * cost({})
    with pytest.raises(ValueError, match="budget must be at least .* one channel a layer"):
        scaled(problem, "macs", 10.0)


@pytest.mark.parametrize("rule", RULES[:2])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_fits_its_budget_and_says_what_it_did(family, rule):
    problem, network = pictures(family), trained(family, {"mlp": (24, 20)}.get(family, (8, 8, 12, 12)))
    spaces = spaces_of(problem, network)
    cost, batches = widths_cost(network, spaces, problem.example, "energy"), [problem.batch(0)[0], problem.batch(1)[0]]
    made = cut_to(network, spaces, cost, 0.6 * cost({}), batches, CutConfig(80, 8, rule), generator_from(0, "x"))
    after = COUNTERS["energy"](made.network, problem.example)
    assert 0.4 * cost({}) < after <= 0.6 * cost({})
    again = replayed(network, made.edits)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), made.network.state_dict().values(),
                                                 strict=True))  # fmt: skip
    for space, error in zip(spaces.growable, made.errors, strict=True):
        assert (error > 0) == (space in made.changes)
        assert space not in made.changes or len(made.changes[space].src) < spaces[space].size


def test_twin_neurons_are_dropped_first_and_leave_the_function_as_it_was():
    """What growth doubles for nothing, imitation takes back at no error."""
    problem, small = pictures("mlp"), trained("mlp", (6,))
    spaces = spaces_of(problem, small)
    twins = resized(small, spaces, (12,))
    with torch.no_grad():
        twins.get_parameter("head.weight").mul_(0.5)
    wide = spaces_of(problem, twins)
    cost = widths_cost(twins, wide, problem.example, "parameters")
    made = cut_to(twins, wide, cost, cost({wide.growable[0]: 6}), [problem.inputs], CutConfig(), generator_from(0, "x"))
    assert sorted(place % 6 for place in made.changes[wide.growable[0]].src.tolist()) == list(range(6))
    assert made.errors[0] < 1e-9
    inputs = problem.test_inputs[:50]
    with torch.no_grad():
        assert torch.allclose(made.network(inputs), small(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family, unit", [("vgg", "energy"), ("mlp", "parameters")])
def test_growth_ends_below_the_ceiling_and_pruning_below_the_budget(family, unit):
    problem, (config, whole) = pictures(family), kept(family, unit=unit)
    costs = {name: [] for name in ("splitting", "pruning")}
    for snapshot in whole:
        if snapshot.phase in costs:
            costs[snapshot.phase].append(float(costs_of(snapshot.curve[-1:], unit)))
            wanted = COUNTERS[unit](network_of(problem, snapshot), problem.example)
            assert costs[snapshot.phase][-1] == wanted, "the axis is what the network really costs"
    assert len(costs["splitting"]) == 3 and len(costs["pruning"]) == 2
    assert all(config.budget < cost <= config.most for cost in costs["splitting"][1:])
    assert all(cost <= config.budget for cost in costs["pruning"])
    assert costs["splitting"][1] > costs["pruning"][0] < costs["splitting"][2], "up, down and up"


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_trains_as_long_and_ends_within_the_budget(plan):
    config, whole = kept("mlp", plan)
    last = whole[-1]
    assert last.trained == 2 * 5 + 2 and last.step == last.total == total_steps(config) == len(whole) - 1
    assert last.outcome and not any(snapshot.outcome for snapshot in whole[:-1])
    first, final = (float(costs_of(snapshot.curve[-1:], "energy")) for snapshot in (whole[0], last))
    assert 0.7 * config.budget < final <= config.budget
    assert {"both": first == 0.5 * config.budget, "grow": first == 0.5 * config.budget, "scratch": first == final,
            "prune": config.budget < first <= config.most}[plan]  # fmt: skip
    kinds = {snapshot.phase for snapshot in whole} - {"training", "scoring"}
    assert kinds == {"both": {"splitting", "pruning"}, "grow": {"splitting"}, "prune": {"pruning"}}.get(plan, set())
    work = [snapshot.spent for snapshot in whole]
    assert work == sorted(work) and work[0] == 0 < work[1]


def test_costs_climb_and_fall_geometrically():
    config = GrowAndPruneConfig(8.0, cycles=2, rounds=3, stage=10, ceiling=2.0)
    plan = moves(config, 2.0)
    assert [move.target for move in plan] == pytest.approx([4.0, 8.0, 16.0, 8.0, 16.0, 8.0])
    assert [move.kind for move in plan] == ["grow"] * 3 + ["prune", "grow", "prune"]
    down = moves(replace(config, plan="prune"), 16.0)
    assert [move.target for move in down] == pytest.approx([8 * 2**0.5, 8.0]) and [m.steps for m in down] == [30, 20]


RESUMED = [("vgg", "s2d", "both"), ("mlp", "firefly", "both"), ("mlp", "random", "both"), ("mlp", "s2d", "prune")]


@pytest.mark.parametrize("family, method, plan", RESUMED)
def test_a_run_goes_on_from_any_snapshot_with_the_same_bytes(family, method, plan):
    config, whole = kept(family, plan, method=method)
    frames = [snapshot_bytes(snapshot) for snapshot in whole]
    assert max(map(len, frames)) <= MAX_BYTES
    pruned = [place for place, snapshot in enumerate(whole) if snapshot.phase == "pruning"]
    scored = [place for place, snapshot in enumerate(whole) if snapshot.phase in ("scoring", "choosing")]
    for at in {pruned[0] - 1, pruned[0], *scored[-1:], pruned[-1]}:
        start = snapshot_from(frames[at], Reshaped)
        resumed = list(islice(grow_and_prune(pictures(family), config, generator_from(99, "x"), start), 2))
        for again, wanted in zip(resumed, frames[at:], strict=False):
            assert snapshot_bytes(again) == wanted, (at, again.step, again.phase)


@pytest.mark.parametrize("family, method", [("vgg", "s2d"), ("mlp", "firefly"), ("mobilenet", "energy")])
def test_a_neuron_keeps_its_name_and_no_name_is_given_twice(family, method):
    _, whole = kept(family, method=method)
    ever, alive = set(torch.cat(whole[0].ids).tolist()), set(torch.cat(whole[0].ids).tolist())
    for before, after in pairwise(whole):
        now = set(torch.cat(after.ids).tolist())
        assert len(now) == sum(after.widths) == sum(len(part) for part in after.shares)
        assert not (now - alive) & ever, "the name of a dropped neuron came back"
        ever, alive = ever | now, now
        assert len(ever) == given(after.seed_widths, after.layer_sizes, after.grew_src)
        if after.phase == "pruning":
            assert sum(after.dropped) == sum(before.widths) - sum(after.widths) > 0
            shares = dict(zip(torch.cat(before.ids).tolist(), torch.cat(before.shares).tolist(), strict=True))
            count = sum(number == after.round for number in after.grew_round)
            gates = torch.cat(after.grew_coef[-count:])
            assert bool((gates > 0).all()) and all(bool((src != NEW).all()) for src in after.grew_src[-count:])
            ratio = torch.cat(after.shares) / torch.tensor([shares[one] for one in torch.cat(after.ids).tolist()])
            rest = sum(after.widths) - len(gates)
            assert torch.allclose(ratio.sort().values, torch.cat([gates, torch.ones(rest).double()]).sort().values)


@pytest.mark.parametrize("family, method", [("vgg", "s2d"), ("mlp", "firefly"), ("mobilenet", "energy")])
def test_the_network_can_be_taken_along_with_its_edits(family, method, tmp_path):
    problem, (_, whole) = pictures(family), kept(family, method=method)
    network, edits = grown_network(problem, whole[-1])
    path = tmp_path / "network.safetensors"
    path.write_bytes(network_bytes(network, edits))
    loaded, log = load_network(path)
    inputs = problem.test_inputs[:5]
    assert torch.equal(loaded.eval()(inputs), network(inputs)) and len(log) == len(edits) > 0
    if not whole[-1].layer_names:
        again = replayed(problem.network(whole[-1].seed_widths, generator_from(0, "x")), edits)
        assert [part.shape for part in again.state_dict().values()] == [part.shape for part in whole[-1].state]


def test_an_optimiser_goes_through_a_pruning_with_what_it_knew():
    _, whole = kept("mlp")
    at = next(place for place, snapshot in enumerate(whole) if snapshot.phase == "pruning")
    before, after = whole[at - 1], whole[at]
    kept_neurons, gates = after.grew_src[-1], after.grew_coef[-1].float()
    assert torch.allclose(after.first[0], before.first[0][kept_neurons] * gates[:, None])
    assert torch.allclose(after.second[0], before.second[0][kept_neurons] * gates[:, None] ** 2)
    assert torch.equal(after.first[2], before.first[2][:, kept_neurons]) and after.trained == before.trained


def test_growth_without_room_leaves_the_network_as_it_is():
    config = configured("mlp", 1.0, plan="grow", ceiling=1.0)
    whole = list(grow_and_prune(pictures("mlp"), config, generator_from(0, "run")))
    assert {snapshot.widths for snapshot in whole} == {whole[0].widths} and whole[-1].round == config.rounds
    assert whole[-1].step == whole[-1].total


def test_what_cannot_be_is_said():
    config = configured("mlp")
    for wrong in ({"plan": "x"}, {"unit": "x"}, {"ceiling": 0.5}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            next(grow_and_prune(pictures("mlp"), replace(config, **wrong), generator_from(0, "x")))
    with pytest.raises(ValueError, match="a snapshot holds .*: take less"):
        largest(pictures("vgg"), replace(configured("vgg"), budget=1e9))
