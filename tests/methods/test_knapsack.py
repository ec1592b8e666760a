"""The selection under a budget: against brute force, a linear programme solver, and its own promises."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from studio.methods.knapsack import chosen, exact, multiple_choice, multiple_choice_bound, relaxed

REPEATABLE = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def tensors(*arrays):
    return tuple(torch.from_numpy(np.asarray(array)) for array in arrays)


def instance(seed, most=18):
    """Gains of which some are positive, whole-number costs, and a budget from nothing to nearly everything."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, most + 1))
    costs = generator.integers(1, 30, size=n)
    gains = -costs * generator.uniform(0.2, 1, size=n) if seed % 2 else generator.normal(-0.5, 1, size=n)
    return gains, costs, int(generator.uniform(0, 1) * costs.sum())


def brute_force(gains, costs, budget):
    """The lowest sum of gains over all subsets within the budget."""
    masks = (np.arange(2 ** len(gains))[:, None] >> np.arange(len(gains)) & 1).astype(np.float64)
    return (masks @ gains)[masks @ costs <= budget].min()


def options(seed, most=7, m=3):
    """Gains and costs of m options an item: any, or (odd seeds) two, three and four copies as S3D has them."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, most + 1))
    costs = generator.integers(1, 20, size=(n, m))
    gains = generator.normal(-0.5, 1, size=(n, m))
    if seed % 2:
        costs, gains = costs[:, :1] * np.arange(1, m + 1), -np.sort(generator.exponential(size=(n, m)), axis=1)
    return gains, costs, int(generator.uniform(0, 0.8) * costs.max(axis=1).sum())


def best_choice(gains, costs, budget, allowed=lambda choice: True):
    """The lowest sum of gains over all ways to give each item one option or none."""
    n, m = gains.shape
    padded, prices = np.hstack([gains, np.zeros((n, 1))]), np.hstack([costs, np.zeros((n, 1))])
    rows, lowest = np.arange(n), 0.0
    for choice in itertools.product(range(-1, m), repeat=n):
        value = padded[rows, choice].sum()
        if value < lowest and prices[rows, choice].sum() <= budget and allowed(choice):
            lowest = value
    return lowest


def paid(table, choice):
    """The sum of a table over the options chosen."""
    return sum(table[item, option] for item, option in enumerate(choice.tolist()) if option >= 0)


@pytest.mark.parametrize("seed", range(100))
def test_bound_optimum_and_greedy_stand_in_this_order(seed):
    """G23: relaxation <= optimum <= greedy <= relaxation less the best single item, greedy <= optimum / 2; exact is."""
    gains, costs, budget = instance(seed)
    optimum = brute_force(gains, costs, budget)
    value, price = tensors(gains, costs)
    mask, whole = chosen(value, price, budget).numpy(), exact(value, price, budget).numpy()
    beta = relaxed(value, price, budget)
    greedy, bound = float(gains[mask].sum()), float((beta * value).sum())
    assert costs[mask].sum() <= budget and costs[whole].sum() <= budget
    assert float(gains[whole].sum()) == pytest.approx(optimum, abs=1e-12)
    assert bound - 1e-12 <= optimum <= greedy + 1e-12
    fitting = np.where(costs <= budget, np.minimum(gains, 0), 0)
    fair = relaxed(value[fitting < 0], price[fitting < 0], budget) @ value[fitting < 0]
    assert greedy <= float(fair) - fitting.min() + 1e-12, "within one item of the relaxation"
    assert greedy <= optimum / 2 + 1e-12


@pytest.mark.parametrize("seed", range(100))
def test_sorting_solves_the_relaxation(seed):
    gains, costs, budget = instance(seed, most=60)
    beta = relaxed(*tensors(gains, costs), budget).numpy()
    oracle = linprog(gains, A_ub=costs[None], b_ub=[budget], bounds=(0, 1), method="highs")
    assert beta @ gains == pytest.approx(oracle.fun, abs=1e-9)
    assert beta @ costs <= budget + 1e-9
    assert ((beta > 0) & (beta < 1)).sum() <= 1
    assert not beta[gains >= 0].any()


@pytest.mark.parametrize("seed", range(60))
def test_multiple_choice_against_brute_force_and_a_solver(seed):
    gains, costs, budget = options(seed)
    n, m = gains.shape
    value, price = tensors(gains, costs)
    choice, bound = multiple_choice(value, price, budget), multiple_choice_bound(value, price, budget)
    optimum, greedy = best_choice(gains, costs, budget), paid(gains, choice)
    assert paid(costs, choice) <= budget
    assert bound - 1e-12 <= optimum <= greedy + 1e-12
    assert greedy <= optimum / 2 + 1e-12
    assert greedy <= np.where(costs <= budget, gains, 0).min() + 1e-12
    oracle = linprog(
        gains.ravel(),
        A_ub=np.vstack([costs.ravel(), np.kron(np.eye(n), np.ones(m))]),
        b_ub=[budget, *[1] * n],
        bounds=[(0, 1 if cost <= budget else 0) for cost in costs.ravel()],
        method="highs",
    )
    assert bound == pytest.approx(oracle.fun, abs=1e-9)


def test_the_greedy_choices_are_nearly_optimal_on_average():
    """Half is the promise for the worst case; the usual case is close to the optimum."""
    shares = []
    for seed in range(100):
        gains, costs, budget = instance(seed)
        optimum = brute_force(gains, costs, budget)
        if optimum < 0:
            shares.append(gains[chosen(*tensors(gains, costs), budget).numpy()].sum() / optimum)
    several = []
    for seed in range(60):
        gains, costs, budget = options(seed)
        optimum = best_choice(gains, costs, budget)
        if optimum < 0:
            several.append(paid(gains, multiple_choice(*tensors(gains, costs), budget)) / optimum)
    assert np.mean(shares) > 0.97 and np.mean(several) > 0.95


@pytest.mark.parametrize("seed", range(40))
def test_caps_hold_and_the_rest_is_filled(seed):
    """With one cost a group greedy keeps half of the optimum under the caps; nothing that still fits is left."""
    generator = np.random.default_rng(seed)
    n = 12
    groups, caps = generator.integers(0, 3, size=n), generator.integers(0, 4, size=3)
    gains, costs = generator.normal(-1, 1, size=n), generator.integers(1, 9, size=3)[groups]
    budget = int(generator.uniform(0, 1) * costs.sum())
    mask = chosen(*tensors(gains, costs), budget, *tensors(groups, caps)).numpy()
    used = np.bincount(groups[mask], minlength=3)
    assert (used <= caps).all() and costs[mask].sum() <= budget
    assert not mask[gains >= 0].any()
    open_ = ~mask & (gains < 0) & (used < caps)[groups] & (costs <= budget - costs[mask].sum())
    assert not open_.any()
    masks = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)
    fits = (masks @ costs <= budget) & np.all([masks[:, groups == g].sum(axis=1) <= caps[g] for g in range(3)], axis=0)
    optimum = (masks @ gains)[fits].min()
    assert optimum - 1e-12 <= gains[mask].sum() <= optimum / 2 + 1e-12


@pytest.mark.parametrize("seed", range(30))
def test_caps_count_the_neurons_that_options_add(seed):
    gains, costs, budget = options(seed, most=6)
    groups, caps, extra = np.arange(len(gains)) % 2, np.array([3, 1]), np.array([1, 2, 3])
    choice = multiple_choice(*tensors(gains, costs), budget, *tensors(groups, caps, extra))

    def added(options):
        return np.bincount(groups, weights=np.array([0, *extra])[np.array(options) + 1], minlength=2)

    assert (added(choice.tolist()) <= caps).all() and paid(costs, choice) <= budget
    assert paid(gains, choice) >= best_choice(gains, costs, budget, lambda c: (added(c) <= caps).all()) - 1e-12
    single = np.where((costs <= budget) & (gains < 0) & (extra <= caps[groups][:, None]), gains, 0).min()
    assert paid(gains, choice) <= single + 1e-12
    assert torch.equal(choice, multiple_choice(*tensors(gains, costs), budget, *tensors(groups, caps)))
    wide = torch.tensor([1000, 1000])
    assert torch.equal(
        multiple_choice(*tensors(gains, costs), budget),
        multiple_choice(*tensors(gains, costs), budget, torch.from_numpy(groups), wide),
    )


@REPEATABLE
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_more_budget_is_never_worse_for_the_bounds_and_one_option_is_the_plain_knapsack(seed, share):
    gains, costs, budget = options(seed, most=30)
    value, price = tensors(gains, costs)
    assert multiple_choice_bound(value, price, budget) <= multiple_choice_bound(value, price, share * budget) + 1e-12
    one, cost = value[:, :1], price[:, :1]
    mask = chosen(one[:, 0], cost[:, 0], budget)
    assert torch.equal(multiple_choice(one, cost, budget) >= 0, mask)
    low = relaxed(one[:, 0], cost[:, 0], budget) @ one[:, 0]
    assert float(low) <= multiple_choice_bound(one, cost, budget) + 1e-12


@REPEATABLE
@given(st.integers(0, 10**6))
def test_fractions_of_a_budget_never_go_over_it(seed):
    """Costs that are not whole numbers: within rounding, and everything is bought when the budget is their sum."""
    generator = np.random.default_rng(seed)
    gains, costs = -generator.exponential(size=200), generator.choice([0.1, 0.2, 0.7], size=200)
    value, price = tensors(gains, costs)
    mask = chosen(value, price, 5.0).numpy()
    assert costs[mask].sum() <= 5.0 * (1 + 1e-9)
    assert bool(chosen(value, price, float(price.sum())).all())
    assert relaxed(value, price, float(price.sum())).eq(1).all()


def test_ties_go_to_the_first():
    gains, costs = -torch.ones(6), torch.full((6,), 2)
    assert chosen(gains, costs, 7).tolist() == [True] * 3 + [False] * 3
    assert relaxed(gains, costs, 7).tolist() == [1, 1, 1, 0.5, 0, 0]
    assert exact(gains, costs, 7).sum() == 3
    assert chosen(gains, costs, 100, torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([1, 2])).tolist() == [
        *[True, True, False, True],
        *[False, False],
    ]
    table = multiple_choice(-torch.ones(4, 1), torch.ones(4, 1), 2)
    assert table.tolist() == [0, 0, -1, -1]


def test_an_empty_purse_buys_only_what_is_free():
    gains, costs = torch.tensor([-1.0, -2.0, 0.0, 3.0]), torch.tensor([4, 0, 0, 0])
    expected = [False, True, False, False]
    assert chosen(gains, costs, 0).tolist() == expected
    assert exact(gains, costs, 0).tolist() == expected
    assert relaxed(gains, costs, 0).tolist() == [0, 1, 0, 0]
    assert multiple_choice(gains[:, None], costs[:, None], 0).tolist() == [-1, 0, -1, -1]
    assert multiple_choice_bound(gains[:, None], costs[:, None], 0) == -2
    capped = chosen(torch.tensor([-1.0, -5.0]), torch.zeros(2), 0, torch.zeros(2, dtype=torch.int64), torch.tensor([1]))
    assert capped.tolist() == [False, True], "of two free items the better one takes the last place"


def test_one_large_item_is_taken_where_greedy_by_ratio_would_be_poor():
    gains, costs = torch.tensor([-2.0, -99.0, -1.0]), torch.tensor([1, 100, 100])
    assert chosen(gains, costs, 100).tolist() == [False, True, False]
    assert multiple_choice(gains[None], costs[None], 100).tolist() == [1]
    assert multiple_choice(gains[:, None], costs[:, None], 100).tolist() == [-1, 0, -1]


def test_dominated_options_are_passed_over_and_a_larger_one_fills_what_is_left():
    gains = torch.tensor([[-3.0, -2.0, -4.0]])
    assert multiple_choice(gains, torch.tensor([[1, 2, 3]]), 2).tolist() == [0], "dearer and worse is dominated"
    assert multiple_choice(gains, torch.tensor([[1, 2, 3]]), 3).tolist() == [2]
    off_hull = torch.tensor([[-3.0, -3.5, -9.0]])
    assert multiple_choice(off_hull, torch.tensor([[1, 2, 3]]), 2).tolist() == [1], "not on the hull, yet it fits"
    two = torch.tensor([[-10.0, 0.0, 0.0], [-3.0, -3.5, -9.0]])
    assert multiple_choice(two, torch.tensor([[1, 2, 3], [1, 2, 3]]), 3).tolist() == [0, 1]


def test_thousands_of_items_and_an_unlimited_budget():
    gains = -torch.rand(5000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    costs = torch.arange(1, 4).expand(5000, 3)
    assert torch.equal(multiple_choice(gains, costs, float("inf")), gains.argmin(dim=1))
    assert bool(chosen(gains[:, 0], costs[:, 0], float("inf")).all())
    choice, bound = multiple_choice(gains, costs, 4000), multiple_choice_bound(gains, costs, 4000)
    assert bound - 1e-9 <= paid(gains.numpy(), choice) <= bound * (1 - 1e-3), "many small items: nearly the relaxation"


def test_nothing_to_choose_from():
    none, some = torch.zeros(0), torch.ones(3)
    assert chosen(none, none, 5).shape == relaxed(none, none, 5).shape == (0,)
    assert exact(none, none.long(), 5).shape == multiple_choice(none[:, None], none[:, None], 5).shape == (0,)
    assert not chosen(some, some, 5).any() and not exact(some, some.long(), 5).any()
    assert not relaxed(some, some, 5).any() and multiple_choice(some[:, None], some[:, None], 5).tolist() == [-1] * 3


def test_arguments_are_left_alone_and_types_kept():
    gains = torch.tensor([-1.0, -2.0], requires_grad=True)
    costs, groups, caps = torch.ones(2), torch.tensor([0, 0]), torch.tensor([1])
    assert chosen(gains, costs, 9, groups, caps).tolist() == [False, True]
    multiple_choice(gains[:, None], costs[:, None], 9, groups, caps)
    assert caps.tolist() == [1] and relaxed(gains, costs, 9).dtype == torch.float32
    assert exact(gains, torch.tensor([10**9, 2 * 10**9]), 2 * 10**9).tolist() == [False, True], "common divisors go"


@pytest.mark.parametrize("call", [chosen, relaxed, lambda g, c, b: multiple_choice(g[:, None], c[:, None], b)])
def test_numbers_that_are_none_are_refused(call):
    good = torch.ones(2)
    with pytest.raises(ValueError, match="^gains must be finite: look for NaN"):
        call(torch.tensor([-1.0, float("nan")]), good, 1.0)
    with pytest.raises(ValueError, match="^costs must be finite and not negative"):
        call(good, torch.tensor([1.0, float("nan")]), 1.0)
    with pytest.raises(ValueError, match="^costs must be finite and not negative"):
        call(good, torch.tensor([1.0, -1.0]), 1.0)
    for budget in (float("nan"), -1.0):
        with pytest.raises(ValueError, match="^budget must be 0 or more"):
            call(good, good, budget)


def test_groups_and_sizes_that_do_not_fit_are_refused():
    good, groups, caps = -torch.ones(2), torch.tensor([0, 1]), torch.tensor([1, 1])
    with pytest.raises(ValueError, match="^groups and caps must be given together"):
        chosen(good, -good, 1, groups)
    with pytest.raises(ValueError, match="^groups must lie between 0 and 0"):
        chosen(good, -good, 1, groups, caps[:1])
    with pytest.raises(ValueError, match="^caps must not be negative"):
        chosen(good, -good, 1, groups, -caps)
    with pytest.raises(ValueError, match="^extra must not be negative"):
        multiple_choice(good[:, None], -good[:, None], 1, groups, caps, torch.tensor([-1]))
    with pytest.raises(ValueError, match="^costs and budget must be whole numbers"):
        exact(good, torch.ones(2, dtype=torch.int64), 1.5)
    with pytest.raises(ValueError, match="^budget is too large for exact"):
        exact(good, torch.tensor([10**9, 10**9 + 1]), 2 * 10**9)
