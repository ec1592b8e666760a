"""Energy-aware fast splitting: the lowest curvature of every neuron by stochastic descent, and the most for a budget.

Wang, Li, Wu, Chandra and Liu, "Energy-Aware Neural Architecture Optimization with Fast Splitting Steepest Descent",
2019, arXiv 1910.03103.

    fast            v_i <- v_i - rate * grad R(v_i),   R(v) = v . S v / v . v   on mini-batches, all neurons together
                    lambda_i = the mean of R(v_i) over the last part of the way
    energy-aware    min_beta sum_i beta_i lambda_i   s.t.  sum_i beta_i e_i <= budget,   0 <= beta_i <= 1
                    solved by sorting lambda_i / e_i;   e_i: what one more neuron costs, counted on the network

The public code descends with RMSprop at 1e-3 for some epochs, without letting the rate fall; on a small network that
still left errors of a fifth to two thirds. Here the gradient of each neuron is measured in units of its own running
size (that much is RMSprop, for a whole neuron at once), the rate falls to zero, and over the last quarter of the
batches the vectors rest while their quotients are averaged (a mean over moving vectors, as there, is of none of them).
Lanczos' iteration (`curvature`) is both faster and exact on its batch and is the default; this is for data that do not
fit one batch, and for comparison. Costs are counted, not taken from a formula; batch norm stays in evaluation mode;
linear layers are not scored.
"""

__all__ = ["Descent", "energy_aware", "rayleigh_spectra", "rayleigh_start", "rayleigh_step"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import cos, pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.methods.curvature import Curvature, Spectrum, curvatures
from studio.methods.growth import Planned, Scored
from studio.methods.splitting import splitting
from studio.nets.spaces import Spaces

RATE, MEMORY, MEAN_OVER = 0.7, 0.9, 0.25


@dataclass(frozen=True, eq=False)
class Descent:
    """Where the descent of one space's Rayleigh quotients stands: unit vectors, the running size of the gradients."""

    vectors: Float[Tensor, "n d"]
    sizes: Float[Tensor, " n"]
    sign: float = 1.0
    steps: int = 0


def rayleigh_step(curvature: Curvature, now: Descent, rate: float) -> tuple[Descent, Float[Tensor, " n"]]:
    """Return the vectors one step further down (or up) their quotients, and the quotients they had: one product.

    The gradient of R at a unit vector is 2 (S v - R v). It is divided by the root of the running mean of |S v|^2.
    """
    turned = curvature.product(now.vectors)
    quotients = (now.vectors * turned).sum(dim=1)
    slope = now.sign * (turned - quotients[:, None] * now.vectors)
    sizes = MEMORY * now.sizes + (1 - MEMORY) * turned.square().sum(dim=1)
    unit = (sizes / (1 - MEMORY ** (now.steps + 1))).sqrt().clamp(min=torch.finfo(sizes.dtype).tiny)
    vectors = now.vectors - rate * slope / unit[:, None]
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return replace(now, vectors=vectors, sizes=sizes, steps=now.steps + 1), quotients


def rayleigh_start(curvature: Curvature, generator: torch.Generator, sign: float = 1.0) -> Descent:
    """Return random unit vectors, one a neuron; `sign` -1 is for the way up, to the largest eigenvalue."""
    vectors = torch.randn(curvature.size, generator=generator, dtype=torch.float64).to(curvature.loss)
    return Descent(vectors / vectors.norm(dim=1, keepdim=True), vectors.new_zeros(len(vectors)), sign)


def rayleigh_spectra(
    network: nn.Module, spaces: Spaces, batches: Iterable[tuple[Tensor, Callable[[Tensor], Tensor]]], steps: int,
    generator: torch.Generator,
) -> dict[int, Spectrum]:  # fmt: skip
    """Return both ends of every neuron's spectrum, space by space, after a descent and an ascent over mini-batches.

    `batches` yields inputs and the loss of the outputs on them, one for each of the `steps`.
    """
    states: dict[int, list[Descent]] = {}
    means: dict[int, Tensor] = {}
    last = max(1, round(MEAN_OVER * steps))
    moving = steps - last
    for step, (inputs, loss) in zip(range(steps), batches, strict=False):
        rate = RATE * 0.5 * (1 + cos(pi * step / moving)) if step < moving else 0.0
        for curvature in curvatures(network, spaces, inputs, loss):
            space = curvature.space
            if space not in states:
                states[space] = [rayleigh_start(curvature, generator, sign) for sign in (1.0, -1.0)]
                means[space] = torch.zeros_like(states[space][0].sizes).expand(2, -1)
            both = [rayleigh_step(curvature, now, rate) for now in states[space]]
            states[space] = [now for now, _ in both]
            if step >= moving:
                means[space] = means[space] + torch.stack([quotients for _, quotients in both]) / last
    return {
        space: Spectrum(means[space][0], means[space][1], low.vectors, high.vectors)
        for space, (low, high) in states.items()
    }


def energy_aware(every: Sequence[Scored], budget: float, caps: Sequence[int]) -> list[Planned]:
    """Return the splits that lower the loss most for at most `budget` of cost (see `Scored.cost`), `caps` a space.

    Sorting by lambda_i / e_i solves the relaxed problem; the fractional neuron is left out and what still fits is
    taken.
    """
    return splitting(every, budget, caps)
