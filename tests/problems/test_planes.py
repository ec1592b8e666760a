"""Every plane is zero on its known optimum set, positive off it, and has the gradient autograd says."""

import pytest
import torch

from studio.core.seeds import generator_from
from studio.problems.planes import PLANES, plane


@pytest.mark.parametrize("name", PLANES)
def test_the_optimum_set_is_optimal(name):
    problem = plane(name)
    assert problem.loss(problem.optimum).max() < 1e-12
    elsewhere = problem.start(500, generator_from(0), spread=1.0)
    assert problem.loss(elsewhere).min() >= 0
    gap = torch.cdist(elsewhere, problem.optimum).amin(dim=1)
    assert problem.loss(elsewhere)[gap > 0.3].min() > 1e-4


@pytest.mark.parametrize("name", PLANES)
def test_gradients(name):
    points = plane(name).start(5, generator_from(1)).requires_grad_()
    assert torch.autograd.gradcheck(plane(name).loss, points)


def test_an_unknown_plane_lists_the_known():
    with pytest.raises(ValueError, match="ring, curve"):
        plane("moon")
