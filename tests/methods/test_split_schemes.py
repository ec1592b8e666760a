"""Optimal splits: the closed forms against a numerical optimiser, and that every split does what it promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from studio.methods.split_schemes import COPIES, SCHEMES, best_gains, scheme, scheme_gains

BOUNDS = (1.5, 2.0, 3.0)
SPECTRA = (
    (-1.0, 0.2, 2.0),
    (-1.0, 0.0, 0.5),
    (-1.0, -0.6, -0.3),
    (0.3, 0.5, 1.0),
    (-0.2, 0.1, 1.0),
    (-1.0, -0.5, 1.0),
    (0.0, 0.4, 1.5),
)
# No file of examples, the same examples each time, and no complaint about a busy machine.
REPEATABLE = settings(derandomize=True, deadline=None, database=None, max_examples=200)
NUMBERS = st.floats(-10, 10, allow_nan=False)


def column(value):
    return torch.tensor([value], dtype=torch.float64)


def best(spectrum, c, copies):
    """The lowest G (twice the gain) and the name of the split, or no name."""
    gain, place = best_gains(column(min(spectrum)), column(max(spectrum)), c, copies)
    return 2 * float(gain), SCHEMES[int(place)] if place >= 0 else ""


def optimised(spectrum, c, copies, generator):
    """One run of SLSQP over weights w = a - b (a, b >= 0) and displacements, from a random start."""
    size, m = len(spectrum), copies
    curvature = np.array(spectrum)

    def parts(x):
        return x[:m], x[m : 2 * m], x[2 * m :].reshape(m, size)

    def value(x):
        a, b, d = parts(x)
        bend = d**2 @ curvature
        return (a - b) @ bend, np.concatenate([bend, -bend, (2 * (a - b)[:, None] * d * curvature).ravel()])

    def equal(x):
        a, b, d = parts(x)
        return np.concatenate([[(a - b).sum() - 1], (a - b) @ d])

    def equal_slope(x):
        a, b, d = parts(x)
        first = np.concatenate([np.ones(m), -np.ones(m), np.zeros(m * size)])
        return np.vstack([first, np.hstack([d.T, -d.T, np.kron(a - b, np.eye(size))])])

    def at_least(x):
        a, b, d = parts(x)
        return np.concatenate([[c - (a + b).sum()], 1 - (d**2).sum(axis=1)])

    def at_least_slope(x):
        d = parts(x)[2]
        slope = np.zeros((1 + m, len(x)))
        slope[0, : 2 * m] = -1
        for k in range(m):
            slope[1 + k, 2 * m + k * size : 2 * m + (k + 1) * size] = -2 * d[k]
        return slope

    signed = generator.normal(size=m) + 0.5
    start = np.concatenate([np.maximum(signed, 0), np.maximum(-signed, 0), generator.normal(size=m * size)])
    found = minimize(
        value,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0, c)] * (2 * m) + [(-1, 1)] * (m * size),
        constraints=[
            {"type": "eq", "fun": equal, "jac": equal_slope},
            {"type": "ineq", "fun": at_least, "jac": at_least_slope},
        ],
        options={"maxiter": 200, "ftol": 1e-10},
    )
    feasible = np.abs(equal(found.x)).max() < 1e-6 and at_least(found.x).min() > -1e-6
    return found.fun if feasible else np.inf


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("spectrum", SPECTRA, ids=str)
@pytest.mark.parametrize("c", BOUNDS)
def test_the_closed_forms_are_what_an_optimiser_finds(c, spectrum, copies):
    """G13: within 1e-3 of the best of several starts, and no start goes below."""
    generator = np.random.default_rng(7)
    expected, _ = best(spectrum, c, copies)
    lowest = np.inf
    for start in range(40):
        lowest = min(lowest, optimised(spectrum, c, copies, generator))
        if start >= 5 and abs(lowest - expected) < 1e-4:
            break
    assert abs(lowest - expected) <= 1e-3


@pytest.mark.parametrize("c", BOUNDS)
def test_a_fifth_copy_gains_nothing(c):
    generator = np.random.default_rng(11)
    for spectrum in SPECTRA[:3]:
        expected, _ = best(spectrum, c, 4)
        assert min(optimised(spectrum, c, 5, generator) for _ in range(4)) >= expected - 1e-4


def test_random_feasible_splits_of_five_copies_stay_above_the_optimum():
    generator = np.random.default_rng(3)
    for c in BOUNDS:
        weights = generator.normal(size=(4000, 5))
        plus, minus = np.maximum(weights, 0), np.maximum(-weights, 0)
        weights = weights[(plus.sum(axis=1) > 0) & (minus.sum(axis=1) > 0)]
        plus, minus = np.maximum(weights, 0), np.maximum(-weights, 0)
        mass = generator.uniform(0, (c - 1) / 2, size=(len(weights), 1))
        weights = plus / plus.sum(axis=1, keepdims=True) * (1 + mass) - minus / minus.sum(axis=1, keepdims=True) * mass
        moves = generator.normal(size=(len(weights), 5, 3))
        moves -= np.einsum("nk,nkd->nd", weights, moves)[:, None]
        moves /= np.linalg.norm(moves, axis=2).max(axis=1)[:, None, None]
        assert np.abs(np.einsum("nk,nkd->nd", weights, moves)).max() < 1e-9
        for spectrum in SPECTRA:
            values = np.einsum("nk,nkd,d->n", weights, moves**2, np.array(spectrum))
            assert values.min() >= best(spectrum, c, 4)[0] - 1e-9


@pytest.mark.parametrize("c", [1.0, 1.2, 1.5, 2.0, 3.0, 7.0])
@pytest.mark.parametrize("name", SCHEMES)
def test_every_split_keeps_the_constraints(name, c):
    if c == 1 and name != "binary+":
        with pytest.raises(ValueError, match="c = 1 allows binary"):
            scheme(name, c)
        return
    split = scheme(name, c)
    weights, moves = np.array(split.weights), np.array([split.along_low, split.along_high])
    assert len(weights) == COPIES[SCHEMES.index(name)] == moves.shape[1]
    assert abs(weights.sum() - 1) < 1e-12
    assert np.abs(weights).sum() <= c + 1e-12
    assert np.abs(moves @ weights).max() < 1e-12
    assert (moves**2).sum(axis=0).max() <= 1 + 1e-12


@REPEATABLE
@given(st.integers(0, 10_000), st.floats(1.01, 6))
def test_a_gain_is_what_its_split_does_to_a_random_matrix(seed, c):
    """Half of the sum of w_k d_k' S d_k, with the eigenvectors of S."""
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(4, 4))
    matrix = matrix + matrix.T + generator.normal() * 3 * np.eye(4)
    values, vectors = np.linalg.eigh(matrix)
    gains = scheme_gains(column(values[0]), column(values[-1]), c)[0].numpy()
    for name, gain in zip(SCHEMES, gains, strict=True):
        split = scheme(name, c)
        moves = np.outer(split.along_low, vectors[:, 0]) + np.outer(split.along_high, vectors[:, -1])
        assert gain == pytest.approx(np.array(split.weights) @ np.sum(moves @ matrix * moves, axis=1) / 2, abs=1e-9)


@REPEATABLE
@given(NUMBERS, NUMBERS, st.floats(1.001, 6))
def test_more_copies_and_more_weight_never_lose(first, second, c):
    spectrum = (min(first, second), max(first, second))
    two, three, four = (best(spectrum, c, copies)[0] for copies in (2, 3, 4))
    assert 0 >= two >= three >= four
    assert four == pytest.approx((c + 1) / 2 * min(spectrum[0], 0) - (c - 1) / 2 * max(spectrum[1], 0))
    for copies, gain in ((2, two), (3, three), (4, four)):
        assert best(spectrum, c + 0.5, copies)[0] <= gain


@REPEATABLE
@given(NUMBERS, NUMBERS, st.floats(1.001, 6))
def test_the_mixed_triplet_wins_exactly_between_its_two_bounds(first, second, c):
    low, high = -abs(first) - 1e-3, abs(second) + 1e-3
    ratio, floor, ceiling = high / -low, (c - 1) / 2, 4 * c / (c - 1) ** 2
    if min(abs(ratio / floor - 1), abs(ratio / ceiling - 1)) > 1e-6:
        assert (best((low, high), c, 3)[1] == "mixed") == (floor < ratio < ceiling)


@REPEATABLE
@given(NUMBERS, st.floats(1, 6), st.sampled_from([2, 3, 4]))
def test_one_parameter_never_needs_two_directions(value, c, copies):
    """With d = 1 the eigenvectors coincide, and no split that needs both is chosen; nor where S has one sign."""
    assert best((value, value), c, copies)[1] not in ("mixed", "quartet")
    same_sign = (value, 2 * value) if value >= 0 else (2 * value, value)
    assert best(same_sign, c, copies)[1] not in ("mixed", "quartet")


def test_the_example_of_three():
    found = [best((-1.0, 2.0), 3.0, copies) for copies in (2, 3, 4)]
    assert found == [(-1.0, "binary+"), (pytest.approx(-2.5), "mixed"), (-4.0, "quartet")]
    assert 2 * scheme_gains(column(-1.0), column(2.0), 3.0)[0, 2:4] == pytest.approx([-2.0, -2.0])


def test_positive_splits_only_where_c_is_one():
    low, high = torch.tensor([-1.0, 0.5, -2.0]), torch.tensor([3.0, 4.0, -1.0])
    for copies in (2, 3, 4):
        gain, place = best_gains(low, high, 1.0, copies)
        assert gain.tolist() == [-0.5, 0.0, -1.0] and place.tolist() == [0, -1, 0]
    assert not scheme_gains(low, high, 1.0)[:, 1:].any()


def test_a_splitting_matrix_of_zeros_gains_nothing():
    gain, place = best_gains(torch.zeros(4), torch.zeros(4), 3.0, 4)
    assert not gain.any() and place.tolist() == [-1] * 4
    gain, place = best_gains(torch.zeros(1), torch.ones(1), 3.0, 2)
    assert gain < 0 and SCHEMES[int(place)] == "binary-", "only S = 0 is stable under signed splits"


def test_all_neurons_at_once_are_each_on_its_own_and_nothing_is_modified():
    values = torch.randn(50, 2, generator=torch.Generator().manual_seed(1)).sort(dim=1).values
    kept = values.clone()
    gain, place = best_gains(values[:, 0], values[:, 1], 2.0, 4)
    assert gain.dtype == torch.float32 and torch.equal(values, kept)
    for row, (low, high) in enumerate(values):
        one, where = best_gains(low[None], high[None], 2.0, 4)
        assert one == gain[row] and where == place[row]
    assert best_gains(torch.zeros(0), torch.zeros(0), 2.0, 3)[0].shape == (0,)


def test_mistakes_are_refused_with_a_sentence():
    one = torch.ones(1)
    with pytest.raises(ValueError, match=r"^c must be a finite number of at least 1, got 0.5"):
        scheme_gains(one, one, 0.5)
    with pytest.raises(ValueError, match="^c must be a finite number"):
        scheme("binary+", float("nan"))
    with pytest.raises(ValueError, match=r"^name must be one of binary\+"):
        scheme("quintet", 2.0)
    with pytest.raises(ValueError, match="^copies must be 2, 3 or 4, got 5"):
        best_gains(one, one, 2.0, 5)
    with pytest.raises(ValueError, match="^low must not exceed high"):
        scheme_gains(one, -one, 2.0)
    with pytest.raises(ValueError, match="^low and high must be finite"):
        scheme_gains(one, one * float("nan"), 2.0)
