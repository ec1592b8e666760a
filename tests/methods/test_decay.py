"""How fast errors fall: the two fits, what the hull promises, and where the exponential ends on real data."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.methods.decay import fit_rate, interior_certificate, rank_of
from studio.methods.forward_selection import Stop, centred, select

NEURONS = 2000


@pytest.fixture(scope="module")
def contributions():
    """What each of 2,000 ReLU neurons of a network trained on the diabetes data adds to its output, (n, examples)."""
    folder = Path(find_spec("sklearn").origin).parent / "datasets" / "data"
    files = (folder / "diabetes_data_raw.csv.gz", folder / "diabetes_target.csv.gz")
    inputs, targets = (torch.from_numpy(np.loadtxt(file, dtype=np.float32)) for file in files)
    inputs, targets = (part.sub(part.mean(dim=0)).div(part.std(dim=0)) for part in (inputs, targets))
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(NEURONS, 11, generator=generator), torch.randn(NEURONS, generator=generator)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    weights = [(first * (2 / 11) ** 0.5).requires_grad_(), (second / NEURONS**0.5).requires_grad_()]
    optimiser = torch.optim.Adam(weights, lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (torch.relu(inputs @ weights[0].T) @ weights[1] - targets).square().mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5, "the network has learned"
    with torch.no_grad():
        return (NEURONS * torch.relu(inputs @ weights[0].T) * weights[1]).T.double().numpy()


def decay(contributions, examples, rule="line_search"):
    """The fit of 300 steps of selection on so many examples, and the dimensions that these have."""
    chosen = np.random.default_rng(0).permutation(contributions.shape[1])[:examples]
    rows = contributions[:, chosen]
    gram = centred(rows @ rows.T)
    errors = np.array(select(gram, rule, Stop(steps=300)).errors)
    return fit_rate(np.arange(1, len(errors) + 1), errors), np.linalg.matrix_rank(rows - rows.mean(axis=0))


@pytest.mark.parametrize("examples", (5, 10))
def test_few_examples_are_imitated_exponentially(contributions, examples):
    """G7, one side: neurons far outnumber the dimensions."""
    fit, rank = decay(contributions, examples)
    assert fit.preferred == "exponential" and fit.exp_r2 >= 0.98 and rank == examples
    assert decay(contributions, examples, "fixed_step")[0].preferred == "power law"


def test_many_examples_are_imitated_by_a_power_law(contributions):
    """G7, the other side: no exponential is seen within 300 steps, although it is proved to come."""
    fit, rank = decay(contributions, 80)
    assert fit.preferred == "power law" and fit.power_r2 >= 0.9 and rank == 80
    assert fit.exp_rate < 0.1 * decay(contributions, 10)[0].exp_rate


@pytest.mark.parametrize("rate", (0.01, 0.7, 3.0))
def test_exponentials_are_recovered(rate):
    n = np.arange(1, 9)
    fit = fit_rate(n, 5.0 * np.exp(-rate * n))
    assert fit.exp_rate == pytest.approx(rate, rel=1e-9) and fit.exp_r2 == pytest.approx(1)
    assert fit.preferred == "exponential" and fit.power_r2 < 0.99


@pytest.mark.parametrize("power", (0.5, 1.0, 2.0))
def test_powers_are_recovered(power):
    n = np.array([1, 2, 4, 7, 30, 100])
    fit = fit_rate(n, 5.0 * n**-power)
    assert fit.power == pytest.approx(power, rel=1e-9) and fit.power_r2 == pytest.approx(1)
    assert fit.preferred == "power law" and fit.exp_r2 < 0.95


def test_rounding_below_the_floor_is_left_out():
    n = np.arange(1, 60)
    errors = np.exp(-1.0 * n) + 1e-17 * np.random.default_rng(0).random(59)
    fit = fit_rate(n, errors)
    assert fit.exp_rate == pytest.approx(1.0, rel=1e-3) and fit.exp_r2 > 0.9999
    assert fit_rate(n, errors, floor=0.0).exp_r2 < 0.95
    assert fit_rate(n, errors, floor=1e-3).exp_rate == pytest.approx(1.0, rel=1e-9)


def test_too_few_points_give_no_fit():
    for n, errors in (([], []), ([1], [1.0]), ([1, 2], [1.0, 0.1]), ([3, 3, 3], [1.0, 0.5, 0.2]), ([1, 2, 3], [0] * 3)):
        fit = fit_rate(np.array(n, dtype=np.int64), np.array(errors, dtype=np.float64))
        assert np.isnan([fit.exp_rate, fit.exp_r2, fit.power, fit.power_r2]).all() and fit.preferred == ""


def test_certificates_of_known_bodies():
    cross = np.vstack([np.eye(3), -np.eye(3)])
    found = interior_certificate(cross)
    assert (found.radius, found.diameter) == (pytest.approx(1 / np.sqrt(3)), pytest.approx(2))
    assert found.ratio == pytest.approx(1 - 1 / 12)
    cube = np.array([[x, y, z, t] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1) for t in (-1, 1)], dtype=float)
    found = interior_certificate(cube + np.array([0.5, 0, 0, 0]))
    assert (found.radius, found.diameter) == (pytest.approx(0.5), pytest.approx(4))
    line = interior_certificate(np.array([[-1.0], [0.2], [3.0]]))
    assert (line.radius, line.diameter, line.ratio) == (1.0, 4.0, 1 - 1 / 16)


def test_targets_outside_and_flat_hulls():
    cross = np.vstack([np.eye(3), -np.eye(3)])
    outside = interior_certificate(cross + np.array([5.0, 0, 0]))
    assert (outside.radius, outside.ratio) == (0.0, 1.0)
    assert interior_certificate(np.array([[2.0], [3.0]])).radius == 0.0
    assert interior_certificate(np.array([[2.0]])).ratio == 1.0
    with pytest.raises(ValueError, match="do not span 3 dimensions: project"):
        interior_certificate(np.hstack([np.random.default_rng(0).normal(size=(9, 2)), np.zeros((9, 1))]))


def test_the_effective_dimension_is_the_rank():
    rows = np.random.default_rng(0).normal(size=(50, 7))
    assert rank_of(rows @ rows.T) == 7
    assert rank_of(centred(rows[:5] @ rows[:5].T)) == 4
    assert rank_of(np.zeros((4, 4))) == 0
