"""The growing loop: the same bytes from every snapshot on, honest lineages, budgets and caps kept, every method run."""

from dataclasses import fields, replace
from functools import cache
from itertools import islice

import pytest
import torch

from studio.core.seeds import generator_from
from studio.core.snapshots import MAX_BYTES
from studio.files.frames import snapshot_bytes, snapshot_from
from studio.methods.firefly import FireflyConfig
from studio.methods.growing import Grown, growing, grown_network, growth_steps
from studio.methods.growing_state import network_of, spaces_of
from studio.methods.growth_round import GROWERS, SCORED, GrowthConfig
from studio.nets.costs import COUNTERS, macs, parameters
from studio.nets.network_files import load_network, network_bytes
from studio.problems.growth_images import growth_images
from studio.problems.growth_toys import growth_toy

QUICK = FireflyConfig(layers=1, steps=4, refined=2)
SHORT = GrowthConfig(rounds=2, stage=3, measures=1, descent=6, firefly=QUICK)


def toy():
    return growth_toy("teacher", 0)


def pictures(network="mobilenet", activation="silu", pool="average"):
    return growth_images("digits", network, activation, pool, 200, 50, 0)


def small():
    return pictures("mlp")


def vgg():
    return pictures("vgg")


def run(problem, config, widths=None, seed=0):
    return list(growing(problem, config, generator_from(seed, "growing"), None, widths))


BOOKS = {method: replace(SHORT, method=method, share=0.4, cap=9) for method in GROWERS}


@cache
def kept(method):
    """A run of pictures that the tests share."""
    return run(vgg(), BOOKS[method])


def test_a_snapshot_without_new_layers_is_a_network_of_its_widths():
    problem = toy()
    last = run(problem, replace(SHORT, method="firefly", firefly=replace(QUICK, layers=0)))[-1]
    network = problem.network(last.widths, generator_from(9, "any"))
    network.load_state_dict(dict(zip(network.state_dict(), last.state, strict=True)))
    assert torch.equal(network(problem.inputs), network_of(problem, last)(problem.inputs)) and not last.layer_names


RESUMED = [
    ("s2d", toy, {}), ("s3d", toy, {"optimiser": "lbfgs", "share": 1.0}), ("random", toy, {}),
    ("net2net", toy, {"rounds": 1}), ("new", toy, {"rounds": 1}), ("energy", pictures, {"rounds": 1, "stage": 2}),
    ("s2d", pictures, {"rounds": 1, "stage": 2, "spectrum": "rayleigh"}),
    ("gradmax", toy, {}), ("gradmax", pictures, {"rounds": 1, "stage": 2}),
    ("firefly", toy, {"share": 1.0, "optimiser": "lbfgs"}), ("firefly", small, {"share": 1.0}),
    ("firefly", vgg, {"share": 0.5, "stage": 1, "unit": "parameters", "firefly": replace(QUICK, steps=2, refined=1)}),
]  # fmt: skip


@pytest.mark.parametrize("method, problem, more", RESUMED, ids=[f"{m}-{p.__name__}" for m, p, _ in RESUMED])
def test_a_run_goes_on_from_any_snapshot_with_the_same_bytes(method, problem, more):
    problem = problem()
    config = replace(SHORT, method=method, **more)
    whole = run(problem, config)
    assert [snapshot.step for snapshot in whole] == list(range(growth_steps(config) + 1))
    phases = [snapshot.phase for snapshot in whole]
    assert phases.count("splitting") == config.rounds
    frames = [snapshot_bytes(snapshot) for snapshot in whole]
    grown = [place for place, phase in enumerate(phases) if phase == "splitting"]
    points = {1, 2, grown[0] - 2, grown[0] - 1, grown[0], grown[0] + 1, len(whole) - 2, len(whole) - 1}
    for at in points if len(whole[0].widths) == 1 else (grown[-1] - 1, grown[-1]):
        resumed = list(islice(growing(problem, config, generator_from(99, "x"), snapshot_from(frames[at], Grown)), 3))
        assert [snapshot.step for snapshot in resumed] == list(range(at, min(at + 3, len(whole))))
        for again, wanted in zip(resumed, frames[at:], strict=False):
            assert snapshot_bytes(again) == wanted, (at, again.step, again.phase)


def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    """G29: widths, lineage, plans and weights, to the last bit."""
    one, same, other = (
        b"".join(map(snapshot_bytes, snapshots))
        for snapshots in (kept("s3d"), run(vgg(), BOOKS["s3d"]), run(vgg(), BOOKS["s3d"], seed=1))
    )
    assert one == same and one != other


@pytest.mark.parametrize("method", GROWERS)
def test_every_method_runs_and_keeps_its_books(method):
    problem, config, whole = vgg(), BOOKS[method], kept(method)
    last = whole[-1]
    assert last.outcome and all(not snapshot.outcome for snapshot in whole[:-1])
    grew = sum(last.widths) - sum(whole[0].widths)
    assert (grew == 0) if method == "scratch" else grew > 0
    for snapshot in whole:
        assert len(snapshot_bytes(snapshot)) <= MAX_BYTES
        ids = torch.cat(snapshot.ids).tolist()
        assert len(set(ids)) == len(ids) == sum(snapshot.widths)
        assert tuple(map(len, snapshot.ids)) == snapshot.widths and max(snapshot.widths) <= 9
        for name in ("parents", "born", "shares", "low", "high", "gains", "costs", "schemes"):
            assert tuple(map(len, getattr(snapshot, name))) == snapshot.widths, (snapshot.step, name)
    families(last)
    made = network_of(problem, last)
    neurons, cost, size = last.curve[-1, 1:4].tolist()
    assert (neurons, cost, size) == (sum(last.widths), macs(made, problem.example), parameters(made))
    assert bool(torch.isfinite(last.curve).all()) and bool((last.curve[:, 0].diff() > 0).all())
    assert last.trained == 3 * config.stage == len(last.losses)
    assert last.function_change <= 1e-5
    shown = [snapshot for snapshot in whole if snapshot.phase in ("scoring", "choosing")]
    assert len(shown) == config.rounds + (method in SCORED) and all(s.scored == (method in SCORED) for s in shown)


def test_inserted_layers_are_kept_in_the_books_and_in_the_files(tmp_path):
    """Two rounds on, a layer that came in the first one and grew since is rebuilt, replayed, saved and loaded."""
    problem = vgg()
    config = replace(SHORT, method="firefly", rounds=3, share=0.7, stage=2, firefly=replace(QUICK, splits=False))
    whole = run(problem, config)
    last = whole[-1]
    assert len(last.layer_names) == len(set(last.layer_names)) >= 2 and len(last.widths) == 4 + len(last.layer_names)
    assert len(last.layer_nodes) == len(last.layer_rounds) == len(last.layer_sizes) == len(last.layer_names)
    network, edits = grown_network(problem, last)
    inner = {name: len(network.get_parameter(f"{name}.inn.weight")) for name in last.layer_names}
    assert any(inner[name] > size for name, size in zip(last.layer_names, last.layer_sizes, strict=True))
    wanted = {(edit.tensor, edit.axis): len(edit.index) // edit.groups for edit in edits}
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    assert {key: tensors[key[0]].shape[key[1]] for key in wanted} == wanted and len(wanted) > 20
    for name, joined, number in zip(last.layer_names, last.layer_joined, last.layer_rounds, strict=True):
        at = [snapshot.round for snapshot in whole].index(number)
        assert name not in whole[at - 1].layer_names and name in whole[at].layer_names and whole[at].trained == joined
        place = [space.name for space in spaces_of(problem, network_of(problem, whole[at])).spaces].index(f"{name}.inn")
        assert bool((whole[at].born[place] == number).all()) and bool((whole[at].parents[place] == -1).all())
        assert (number, place) not in list(zip(last.grew_round, last.grew_space, strict=True)), (
            "it came as wide as it is"
        )
    path = tmp_path / "grown.safetensors"
    path.write_bytes(network_bytes(network, edits))
    loaded, log = load_network(path)
    assert torch.equal(loaded(problem.test_inputs), network(problem.test_inputs)) and len(log) == len(edits)
    assert problem.accuracy(loaded) == pytest.approx(float(last.curve[-1, 6]))


def families(snapshot):
    """The shares of everyone who comes from the same first neuron sum to 1."""
    for ids, parents, shares, born in zip(snapshot.ids, snapshot.parents, snapshot.shares, snapshot.born, strict=True):
        parent = dict(zip(ids.tolist(), parents.tolist(), strict=True))
        sums = {}
        for one, share in zip(ids.tolist(), shares.tolist(), strict=True):
            while parent[one] >= 0:
                one = parent[one]
            sums[one] = sums.get(one, 0.0) + share
        assert all(value == pytest.approx(1) for value in sums.values())
        assert bool((born[parents >= 0] > 0).all()) and int(born.max()) <= snapshot.round


def test_signed_families_sum_to_one_too():
    snapshots = run(toy(), replace(SHORT, method="s3d", share=1.0, rounds=3, cap=64))
    last = snapshots[-1]
    families(last)
    assert any(float(part.min()) < 0 for part in last.shares) and {len(s.split_ids) for s in snapshots} != {0}


@pytest.mark.parametrize("network, share", [("vgg", 0.2), ("mlp", 0.6)])
@pytest.mark.parametrize("method", ["s2d", "s3d", "random", "net2net", "new", "gradmax", "firefly"])
def test_a_round_adds_the_share_asked_of_neurons(method, network, share):
    whole = run(pictures(network), replace(SHORT, method=method, share=share, rounds=1))
    before, after = sum(whole[0].widths), sum(whole[-1].widths)
    assert 0 < after - before <= round(share * before)
    assert {s.budget for s in whole if s.phase in ("scoring", "choosing")} >= {round(share * before)}


@pytest.mark.parametrize("cost", COUNTERS)
def test_an_energy_aware_round_spends_no_more_than_its_budget(cost):
    problem = pictures()
    whole = run(problem, replace(SHORT, method="energy", share=0.3, rounds=1, cost=cost))
    at = [snapshot.phase for snapshot in whole].index("splitting")
    scored, split = whole[at - 1], whole[at]
    price = {neuron: float(c) for ids, costs in zip(scored.ids, scored.costs, strict=True)
             for neuron, c in zip(ids.tolist(), costs, strict=True)}  # fmt: skip
    spent = sum(price[neuron] for neuron in split.split_ids)
    assert 0 < spent <= scored.budget * (1 + 1e-9)
    counter = COUNTERS[cost]
    one = counter(network_of(problem, scored), problem.example)
    assert counter(network_of(problem, split), problem.example) - one >= spent > 0


def test_energy_needs_less_for_what_it_gains():
    """With the same candidates, what is gained for each multiply-accumulate is no less than for plain splits."""
    found = {}
    for method in ("s2d", "energy"):
        whole = run(pictures(), replace(SHORT, method=method, share=0.3, rounds=1, stage=20))
        split = next(snapshot for snapshot in whole if snapshot.phase == "splitting")
        before = whole[split.step - 1].curve[-1, 2]
        found[method] = split.curvature / float(split.curve[-1, 2] - before)
    assert found["energy"] <= found["s2d"] < 0


def test_predicted_and_measured_splits_agree():
    problem = pictures("vgg")
    for method in ("s2d", "s3d"):
        whole = run(problem, replace(SHORT, method=method, rounds=1, stage=12, eps=0.01))
        split = next(snapshot for snapshot in whole if snapshot.phase == "splitting")
        assert len(split.split_predicted) == len(split.split_measured) == len(split.split_ids) > 0
        assert sum(split.split_measured) == pytest.approx(sum(split.split_predicted), rel=0.1)
        own = split.tried.index(0.01)
        assert split.together[own] == pytest.approx(split.curvature * 0.01**2, rel=0.1)
        assert set(split.split_schemes) <= {"binary+", "binary-", "triplet+", "triplet-", "mixed", "quartet"}


@pytest.mark.parametrize(
    "activation, pool, approximate", [("silu", "average", False), ("relu", "average", True), ("silu", "max", True)]
)
def test_kinks_make_a_run_approximate(activation, pool, approximate):
    config = replace(SHORT, rounds=0, stage=1)
    last = run(pictures("vgg", activation, pool), config, widths=(3, 3, 3, 3))[-1]
    assert last.scored and last.approximate is approximate


def test_positive_splits_do_not_grow_the_bump_and_signed_ones_do():
    """G14 in the loop: S2D stays one neuron and says so; S3D grows and fits."""
    problem = growth_toy("bump", 0)
    config = GrowthConfig(method="s2d", rounds=1, stage=6, optimiser="lbfgs", share=1.0)
    stuck = run(problem, config)[-1]
    assert stuck.widths == (1,) and stuck.outcome.endswith("no split lowers the loss any more")
    assert float(stuck.curve[-1, 5]) == pytest.approx(4.870e-3, abs=1e-6)
    free = run(problem, replace(config, method="s3d"))[-1]
    assert free.widths[0] > 1 and float(free.curve[-1, 5]) <= 1e-4


def test_a_cap_reached_ends_the_growth():
    whole = run(toy(), replace(SHORT, method="random", share=1.0, rounds=4, stage=1, cap=7))
    assert [s.widths[0] for s in whole if s.phase == "splitting"] == [4, 7, 7, 7]


def test_a_rate_too_large_ends_in_a_sentence():
    with pytest.raises(ValueError, match="rate is too large: the loss is no longer a number; take a smaller"):
        run(toy(), replace(SHORT, method="scratch", rounds=0, stage=40, rate=1e200))


def test_networks_too_large_for_a_snapshot_are_refused():
    config = replace(SHORT, method="random", share=1.0, rounds=1, stage=1, cap=1500)
    with pytest.raises(ValueError, match="a snapshot holds .*take fewer rounds, a smaller share or a smaller cap"):
        run(pictures("mlp"), config, widths=(600, 600))


def test_a_run_may_start_with_other_widths():
    first = next(growing(toy(), SHORT, generator_from(0, "x"), widths=(5,)))
    assert first.widths == (5,) and first.phase == "training" and first.step == 0
    assert {f.name for f in fields(Grown)} >= {"ids", "shares", "curve"}
