"""Fast splitting: the stochastic descent of Rayleigh quotients against exact spectra."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from studio.core.seeds import generator_from
from studio.methods.curvature import Curvature, curvatures, dense
from studio.methods.fast_splitting import rayleigh_spectra, rayleigh_start, rayleigh_step
from studio.nets.families import draw, vgg
from studio.nets.spaces import trace
from studio.problems.digits import labelled


@pytest.fixture(scope="module")
def network():
    """A convolutional network, trained a little, and the batches of one probe."""
    data = labelled("digits")
    inputs, labels = data.inputs[:256].view(-1, 1, 8, 8), data.labels[:256]
    made = draw(vgg((1, 8, 8), (6, 6), 10, "silu", "average"), generator_from(0, "net")).train()
    optimiser = torch.optim.Adam(made.parameters(), 0.02)
    for _ in range(30):
        optimiser.zero_grad()
        F.cross_entropy(made(inputs), labels).backward()
        optimiser.step()
    return made.eval(), inputs, labels


@pytest.mark.parametrize("size, bound", [(256, 0.1), (128, 0.2)])
def test_descent_comes_close_with_ten_times_the_products(network, size, bound):
    """G11: 120 steps against 12 products of Lanczos' iteration; both ends of all neurons of all layers.

    On mini-batches of half the examples what remains is the noise of drawing them.
    """
    made, inputs, labels = network
    spaces = trace(made, inputs[:2])
    steps = 120

    def batches():
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            some = torch.randperm(256, generator=generator)[:size]
            yield inputs[some], lambda outputs, some=some: F.cross_entropy(outputs, labels[some])

    found = rayleigh_spectra(made, spaces, batches(), steps, torch.Generator().manual_seed(1))
    exact = curvatures(made, spaces, inputs, lambda outputs: F.cross_entropy(outputs, labels))
    assert set(found) == {each.space for each in exact}
    lows, wanted = [], []
    for each in exact:
        values = torch.linalg.eigvalsh(dense(each).double())
        norm = values.abs().amax(dim=1)
        for end, mine in ((0, found[each.space].low.double()), (-1, found[each.space].high.double())):
            error = (mine - values[:, end]).abs()
            assert float((error / norm).max()) <= bound
            large = values[:, end].abs() > 0.05 * norm
            assert float((error / values[:, end].abs())[large].max()) <= bound
        lows += found[each.space].low.tolist()
        wanted += values[:, 0].tolist()
        assert torch.allclose(found[each.space].low_vectors.norm(dim=1), torch.ones(len(values)))
    assert spearmanr(lows, wanted).statistic >= 0.9


def test_steps_go_down_and_up_to_the_ends_of_a_known_matrix():
    values = torch.tensor([-2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    curvature = Curvature(0, "x", (2, 4), False, torch.zeros(()).double(), lambda v: v * values)
    for sign, wanted in ((1.0, -2.0), (-1.0, 3.0)):
        now = rayleigh_start(curvature, torch.Generator().manual_seed(0), sign)
        seen = []
        for _ in range(80):
            now, quotients = rayleigh_step(curvature, now, 0.3)
            seen.append(quotients)
        assert torch.allclose(seen[-1], torch.full((2,), wanted).double(), atol=1e-4)
        assert all(bool((sign * (b - a) <= 1e-9).all()) for a, b in pairwise(seen))
        assert now.steps == 80
    still, quotients = rayleigh_step(curvature, now, 0.0)
    assert torch.allclose(still.vectors, now.vectors)


def test_quotients_are_averaged_over_resting_vectors(network):
    """On one batch again and again the mean is the quotient itself, to rounding."""
    made, inputs, labels = network
    spaces = trace(made, inputs[:2])

    def loss(outputs):
        return F.cross_entropy(outputs, labels[:64])

    found = rayleigh_spectra(made, spaces, iter([(inputs[:64], loss)] * 40), 40, torch.Generator().manual_seed(0))
    for each in curvatures(made, spaces, inputs[:64], loss):
        ways = found[each.space].low_vectors
        quotient = (ways * each.product(ways)).sum(dim=1)
        assert torch.allclose(quotient, found[each.space].low, rtol=1e-3, atol=1e-6)
        assert bool((found[each.space].low <= found[each.space].high).all())
