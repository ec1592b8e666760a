"""Greedy selection on Gram matrices: exact, monotone, as good as brute force, and as fast as the theorem promises."""

from itertools import pairwise

import numpy as np
import pytest

from studio.methods.decay import FLOOR, fit_rate, interior_certificate, rank_of
from studio.methods.forward_selection import KINDS, RULES, Selection, Stop, centred, ranked, select

BOTH = ("line_search", "fixed_step")


def sphere(n, d, seed=0):
    """Unit vectors minus their mean: the target is 0."""
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows - rows.mean(axis=0)


def relu_rows(n, d, seed=0, dead=0):
    """Contributions of ReLU neurons of a random layer to one output at d inputs, some of them dead, minus the mean."""
    random = np.random.default_rng(seed)
    inputs, weights = random.normal(size=(d, 12)), random.normal(size=(12, n))
    made = np.maximum(inputs @ weights + random.normal(size=n), 0) * random.normal(size=n)
    made[:, :dead] = 0
    return (made - made.mean(axis=1, keepdims=True)).T


def from_weights(gram, a):
    """A path of one step that ends at given weights, to go on from."""
    a, places = np.asarray(a, dtype=float), np.flatnonzero(a)
    return Selection(
        len(a), (int(places[0]),), (1.0,), ("add",), (float(a @ gram @ a),), (len(places),), (places,), (a[places],)
    )


def steps_of(path):
    return np.arange(1, len(path) + 1), np.array(path.errors)


@pytest.mark.parametrize("rule", RULES)
def test_errors_are_those_of_the_weights_after_300_steps(rule):
    """G1: the recurrences against the rows themselves, at every step."""
    rows = relu_rows(500, 400)
    path = select(rows @ rows.T, rule, Stop(steps=300))
    assert len(path) == 300 and path.reason == "steps"
    again = [float(np.square(path.weights(step) @ rows).sum()) for step in range(300)]
    assert np.abs(np.array(path.errors) / again - 1).max() < 1e-8
    assert path.errors[-1] > FLOOR * path.errors[0], "what is compared is no rounding"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("removal", (True, False))
def test_line_search_never_goes_up_and_stays_on_the_simplex(seed, removal):
    """G2."""
    rows = relu_rows(120, 60, seed, dead=20)
    for rule in ("line_search", "fully_corrective"):
        path = select(rows @ rows.T, rule, Stop(steps=250), removal)
        assert all(after <= before for before, after in pairwise(path.errors))
        for step in range(len(path)):
            a = path.weights(step)
            assert abs(a.sum() - 1) <= 1e-12 and (a >= 0).all() and np.count_nonzero(a) == path.kept[step]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("removal", (True, False))
def test_a_step_is_as_good_as_a_fine_grid_over_every_neuron(seed, removal):
    """G3: 6 neurons, 10,000 step sizes each; the weights to step from have one, some or all of them."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(6, 5)) + 0.3 * random.normal(size=5)
    gram = rows @ rows.T
    for support in (1, 2, 4, 6):
        a = np.zeros(6)
        a[random.permutation(6)[:support]] = random.dirichlet(np.ones(support))
        before = float(a @ gram @ a)
        after = before
        for k in range(6):
            low = -a[k] / (1 - a[k]) if removal and support > 1 else 0.0
            grid = np.linspace(low, 1.0, 10_000)[:, None]
            tried = ((1 - grid) * a + grid * np.eye(6)[k]) @ rows
            after = min(after, float(np.square(tried).sum(axis=1).min()))
        path = select(gram, "line_search", Stop(steps=2), removal, from_weights(gram, a))
        assert path.errors[-1] == pytest.approx(after, abs=1e-6 * before)
        assert path.errors[-1] <= after + 1e-12 * before, "exact search is never behind a grid"


@pytest.mark.parametrize("dimension", range(2, 6))
@pytest.mark.parametrize("n", (30, 200))
def test_every_step_gains_what_the_theorem_promises(dimension, n):
    """G4: with a ball of radius r in the hull, an error falls by the factor 1 - r^2 / diam^2 or more."""
    rows = np.random.default_rng(dimension).normal(size=(n, dimension))
    rows -= rows.mean(axis=0)
    promised = interior_certificate(rows)
    assert promised.radius > 0 and promised.ratio < 1
    for removal in (True, False):
        path = select(rows @ rows.T, "line_search", Stop(steps=300), removal)
        errors = [error for error in path.errors if error > FLOOR * path.errors[0]]
        assert len(errors) >= 4
        assert max(after / before for before, after in pairwise(errors)) <= promised.ratio


def test_the_error_falls_exponentially_where_neurons_outnumber_dimensions():
    """G5: unit vectors, 16 dimensions."""
    rows = sphere(512, 16)
    fit = fit_rate(*steps_of(select(rows @ rows.T, "line_search", Stop(steps=300))))
    assert fit.exp_rate >= 0.3 and fit.exp_r2 >= 0.97
    assert fit.preferred == "exponential" and fit.exp_r2 > fit.power_r2 + 0.05


def test_the_fixed_step_falls_with_the_square_of_the_steps():
    """G6."""
    rows = sphere(512, 16)
    fit = fit_rate(*steps_of(select(rows @ rows.T, "fixed_step", Stop(steps=300))))
    assert fit.power == pytest.approx(2.0, abs=0.15) and fit.preferred == "power law"


@pytest.mark.parametrize("dimension", (4, 8, 16, 32))
def test_full_correction_ends_with_as_many_neurons_as_caratheodory_allows(dimension):
    """G8."""
    rows = sphere(512, dimension)
    gram = rows @ rows.T
    path = select(gram, "fully_corrective", Stop())
    assert rank_of(gram) == dimension
    assert path.kept[-1] == dimension + 1
    assert np.square(path.weights() @ rows).sum() < 1e-10 * path.errors[0]
    assert path.reason == "exact"


def test_full_correction_leaves_the_best_weights_of_its_neurons():
    """The slope is the same along every neuron kept, and no neuron dropped on the way would have been better kept."""
    from scipy.optimize import nnls

    rows = relu_rows(80, 40, seed=3)
    gram = rows @ rows.T
    path = select(gram, "fully_corrective", Stop(neurons=25))
    for step in range(1, len(path)):
        a = path.weights(step)
        slopes = (gram @ a)[a > 0]
        assert np.abs(slopes - path.errors[step]).max() <= 1e-9 * path.errors[0]
        heavy = 1e5 * np.sqrt(path.errors[0])
        support = np.flatnonzero(path.weights(step - 1) + (np.arange(80) == path.touched[step]))
        wanted = nnls(np.vstack([rows[support].T, np.full(len(support), heavy)]), np.append(np.zeros(40), heavy))[0]
        best = float(np.square(wanted / wanted.sum() @ rows[support]).sum())
        assert path.errors[step] <= best * (1 + 1e-6)


def test_full_correction_is_mostly_ahead_of_line_search_at_equal_neurons():
    ahead = []
    for seed in range(20):
        rows = relu_rows(100, 60, seed)
        paths = [select(rows @ rows.T, rule, Stop(neurons=30)) for rule in ("fully_corrective", "line_search")]
        ahead += [paths[0].errors[paths[0].at(n)] / paths[1].errors[paths[1].at(n)] for n in (5, 10, 20, 30)]
    assert np.mean(np.array(ahead) <= 1 + 1e-9) >= 0.95 and np.median(ahead) < 0.95


def test_methods_are_compared_at_equal_numbers_of_distinct_neurons():
    """G10: steps that touch a neuron again cost nothing; `at` and `best` go by the neurons kept."""
    rows = relu_rows(100, 60)
    for rule in BOTH:
        path = select(rows @ rows.T, rule, Stop(steps=120))
        assert max(path.kept) < len(path), "some neurons are touched again"
        counts, errors = path.best()
        assert counts.tolist() == sorted(set(path.kept))
        for n in range(1, max(path.kept) + 3):
            step = path.at(n)
            assert path.kept[step] <= n
            allowed = [error for error, kept in zip(path.errors, path.kept, strict=True) if kept <= n]
            assert path.errors[step] == min(allowed) == errors[counts <= n][-1]
        assert (np.diff(errors) <= 0).all()
        with pytest.raises(ValueError, match="at least 1, got 0"):
            path.at(0)


@pytest.mark.parametrize("weight", (0.002, 0.004, 0.008))
def test_a_planted_bad_neuron_is_removed(weight):
    """G13: two copies of one bad neuron; with removal their weights become 0, without it they stay."""
    rows = sphere(60, 20)
    rows = np.vstack([rows, 30 * rows[:1], 30 * rows[:1]])
    gram = rows @ rows.T
    a = np.append(np.full(60, (1 - weight) / 60), [weight / 2, weight / 2])
    path = select(gram, "line_search", Stop(steps=60), True, from_weights(gram, a))
    bad = {k for k, kind in zip(path.touched, path.kinds, strict=True) if kind == "remove"}
    assert {60, 61} <= bad
    assert path.weights()[60] == path.weights()[61] == 0.0
    held = select(gram, "line_search", Stop(steps=60), False, from_weights(gram, a))
    assert held.weights()[60] > 0 and held.weights()[61] > 0
    assert set(held.kinds) <= {"add", "reweight"}


def test_kinds_say_what_a_step_did():
    rows = sphere(200, 24, seed=1)
    path = select(rows @ rows.T, "line_search", Stop(steps=200))
    assert set(path.kinds) <= set(KINDS) and "shrink" in path.kinds and "reweight" in path.kinds
    for step in range(1, len(path)):
        k, before, after = path.touched[step], path.weights(step - 1), path.weights(step)
        wanted = (
            "add" if before[k] == 0 else "reweight" if after[k] > before[k] else "shrink" if after[k] > 0 else "remove"
        )
        assert path.kinds[step] == wanted
        assert np.allclose(after, (1 - path.gammas[step]) * before + path.gammas[step] * np.eye(200)[k], atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_a_layer_of_one_neuron_is_exact(rule):
    path = select(np.array([[4.0]]), rule, Stop(steps=5))
    assert path.weights().tolist() == [1.0]
    path = select(centred(np.array([[4.0]])), rule, Stop(steps=5))
    assert (path.errors, path.kept, path.reason) == ((0.0,), (1,), "exact")


@pytest.mark.parametrize("rule", RULES)
def test_identical_neurons_do_no_harm(rule):
    """The way from a neuron to its twin is no way: its denominator is 0. Neither is it with all of them alike."""
    same = np.tile(np.random.default_rng(0).normal(size=(1, 5)), (7, 1))
    path = select(centred(same @ same.T), rule, Stop(steps=5))
    assert np.isfinite(path.errors).all() and path.errors[-1] <= 1e-12
    rows = np.repeat(sphere(8, 3), 4, axis=0)
    path = select(rows @ rows.T, rule, Stop(steps=200))
    assert np.isfinite(path.weights()).all() and np.isfinite(path.errors).all()
    assert path.errors[-1] <= 1e-3 * path.errors[0]
    off = np.tile([[3.0, 4.0]], (5, 1))
    path = select(off @ off.T, rule, Stop(steps=4))
    assert path.errors[-1] == pytest.approx(25.0), "a target outside a hull of one point stays as far away"


@pytest.mark.parametrize("rule", RULES)
def test_a_target_without_variance_takes_one_neuron(rule):
    path = select(np.zeros((6, 6)), rule, Stop())
    assert (len(path), path.reason, path.errors) == (1, "exact", (0.0,))


def test_dead_neurons_are_vertices_at_zero():
    rows = relu_rows(60, 10, dead=40)
    for rule in RULES:
        path = select(rows @ rows.T, rule, Stop(steps=400))
        assert np.isfinite(path.errors).all() and np.count_nonzero(path.weights()[:40]) == 1
        assert path.errors[-1] <= {"fully_corrective": 1e-12, "line_search": 1e-4}.get(rule, 1e-2) * path.errors[0]
    all_dead = np.zeros((9, 4))
    assert len(select(centred(all_dead @ all_dead.T), "line_search", Stop())) == 1


def test_gram_matrices_in_float32_are_worked_on_in_float64():
    """Their entries are rounded, but nothing that follows is: errors belong to the weights to the last digits."""
    rows = relu_rows(200, 80)
    coarse = (rows @ rows.T).astype(np.float32)
    for rule in RULES:
        path = select(coarse, rule, Stop(steps=60))
        a = path.weights()
        exact = float(a @ coarse.astype(np.float64) @ a)
        assert a.dtype == np.float64 and abs(a.sum() - 1) <= 1e-12
        assert path.errors[-1] == pytest.approx(exact, rel=1e-8)
    order = np.argsort(np.diagonal(coarse))
    found, wanted = (ranked(gram, order, Stop()).errors for gram in (coarse, coarse.astype(np.float64)))
    assert found == wanted
    assert centred(coarse).dtype == np.float64


@pytest.mark.parametrize("rule", RULES)
def test_a_path_gone_on_with_is_the_path_of_one_run(rule):
    rows = relu_rows(150, 90)
    gram = rows @ rows.T
    whole = select(gram, rule, Stop(steps=90))
    for cut in (1, 2, 37, 89):
        part = select(gram, rule, Stop(steps=cut))
        assert len(part) == cut and part.reason == "steps"
        again = select(gram, rule, Stop(steps=90), start=part)
        assert again.touched == whole.touched and again.kinds == whole.kinds and again.kept == whole.kept
        assert np.allclose(again.errors, whole.errors, rtol=1e-9, atol=0)
        assert np.allclose(again.weights(), whole.weights(), atol=1e-10)
    by_neurons = select(gram, rule, Stop(neurons=40), start=select(gram, rule, Stop(neurons=15)))
    assert by_neurons.touched == select(gram, rule, Stop(neurons=40)).touched


def test_what_ended_a_path_is_said():
    rows = relu_rows(100, 60)
    gram = rows @ rows.T
    for rule in RULES:
        assert select(gram, rule, Stop(neurons=7)).reason == "neurons"
        assert max(select(gram, rule, Stop(neurons=7)).kept) == 7
        assert select(gram, rule, Stop(steps=7)).reason == "steps"
        path = select(gram, rule, Stop(tolerance=0.1))
        assert path.reason == "tolerance" and path.errors[-1] <= 0.1 * path.errors[0] < path.errors[-2]
    inside = sphere(300, 4)
    assert select(inside @ inside.T, "line_search", Stop()).reason == "exact"
    outside = inside + np.array([3.0, 0, 0, 0])
    path = select(outside @ outside.T, "line_search", Stop())
    assert path.reason == "no step lowers the error" and path.errors[-1] > 1
    assert select(outside @ outside.T, "fully_corrective", Stop()).reason == "no step lowers the error"


def test_what_cannot_be_selected_from_is_refused():
    with pytest.raises(ValueError, match="rule must be one of line_search"):
        select(np.eye(3), "magic", Stop())
    for gram, stop in ((np.eye(3), Stop(neurons=0)), (np.zeros((0, 0)), Stop())):
        with pytest.raises(ValueError, match="at least 1 of its neurons"):
            select(gram, "line_search", stop)
    with pytest.raises(ValueError, match="must be finite"):
        centred(np.array([[1.0, np.nan], [np.nan, 1.0]]))


def test_the_target_is_the_mean_or_the_mean_and_a_difference():
    random = np.random.default_rng(0)
    rows, off = random.normal(size=(9, 20)), random.normal(size=20)
    aim = rows.mean(axis=0)
    assert np.allclose(centred(rows @ rows.T), (rows - aim) @ (rows - aim).T)
    found = centred(rows @ rows.T, rows @ off, float(off @ off))
    assert np.allclose(found, (rows - aim - off) @ (rows - aim - off).T)
    a = random.dirichlet(np.ones(9))
    assert a @ found @ a == pytest.approx(np.square(a @ rows - aim - off).sum())


def test_ranked_neurons_come_in_their_order_with_equal_weights():
    rows = relu_rows(40, 30)
    order = np.random.default_rng(0).permutation(40)
    path = ranked(rows @ rows.T, order, Stop(neurons=25))
    assert path.touched == tuple(order[:25]) and path.kept == tuple(range(1, 26))
    for step in range(25):
        chosen = rows[order[: step + 1]].mean(axis=0)
        assert path.errors[step] == pytest.approx(np.square(chosen).sum(), rel=1e-9)
        assert np.allclose(path.weights(step)[order[: step + 1]], 1 / (step + 1))
    whole = ranked(rows @ rows.T, order, Stop())
    assert len(whole) == 40 and whole.errors[-1] <= 1e-12 * whole.errors[0]
    assert len(ranked(rows @ rows.T, order, Stop(steps=3))) == 3
