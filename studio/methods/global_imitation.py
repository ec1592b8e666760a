"""Greedy selection by what the network's output becomes: one pass back screens, a few candidates are run.

Global imitation of Ye, Wu and Liu (NeurIPS 2020, arXiv 2010.15969): the same weights a, with the discrepancy measured
at the output behind the layers that follow,

    D[a] = E dist(F_a(z), F(z)),        dD[(1 - g) a + g e_k] / dg at g = 0  is  s_k - sum_j a_j s_j,   s = dD / da

dist is the squared distance of the logits or KL(F || F_a). There is no closed form for the step: candidates with the
steepest first-order change are run, each with a search for its step size. The released code has hooks for such
gradients and does not use them; how many candidates the paper keeps is not known to us. Without screening every neuron
is run. A step must lower the error by a thousandth: the last improvements cost as many runs as all before them.
"""

__all__ = ["DISTANCES", "Outputs", "imitate_outputs", "taylor_slopes"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.methods.forward_selection import Selection, Stop, Trail, moved
from studio.methods.pruning_cut import gates_of
from studio.nets.contributions import gated
from studio.nets.modes import evaluating
from studio.nets.prefix import Prefix
from studio.nets.spaces import Spaces

DISTANCES = ("mse", "kl")
HALVINGS = 5  # runs along one way before it is given up
LEAST = 1e-3  # share by which a step must lower the error


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network with one gated space makes of some examples, beside what it should make of them.

    `members` are the channels of each vertex, `prefix` holds the examples, `aims` the wanted logits of each batch.
    """

    network: nn.Module
    spaces: Spaces
    space: int
    members: Int[Tensor, "n g"]
    prefix: Prefix
    aims: Sequence[Tensor]
    distance: str = "mse"

    def error(self, a: Float[np.ndarray, " n"]) -> float:
        """Return D[a], the mean over the examples."""
        with torch.no_grad(), self._gated(gates_of(self.members, a)):
            return float(sum(self._distances()) / self._count)

    def slopes(self, a: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return dD / da, from one pass forward and one back."""
        device = self.prefix.batches[0].device
        gates = gates_of(self.members, a).to(device).requires_grad_()
        with torch.enable_grad(), self._gated(gates):
            total = torch.zeros_like(gates)
            for value in self._distances():
                total += torch.autograd.grad(value, gates)[0]
        return len(a) * total.cpu()[self.members].sum(dim=1).numpy() / self._count

    @property
    def _count(self) -> int:
        return sum(len(batch) for batch in self.prefix.batches)

    def _distances(self) -> Iterator[Tensor]:
        """Yield the sum of distances over each batch."""
        for index, aim in enumerate(self.aims):
            made = self.prefix.output(self.network, index)
            if self.distance == "mse":
                yield (made - aim).square().sum()
            else:
                yield nn.functional.kl_div(
                    made.log_softmax(dim=1), aim.log_softmax(dim=1), reduction="sum", log_target=True
                )

    @contextmanager
    def _gated(self, gates: Tensor) -> Iterator[None]:
        with evaluating(self.network), gated(self.network, self.spaces, {self.space: gates}):
            yield


def taylor_slopes(outputs: Outputs, a: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return how D changes, to first order, on the way from a to each vertex."""
    slopes = outputs.slopes(a)
    return slopes - a @ slopes


def imitate_outputs(
    outputs: Outputs, stop: Stop, screen: int, removal: bool = True, start: Selection | None = None,
    first: Sequence[int] = (),
) -> Selection:  # fmt: skip
    """Return the path of global imitation, with errors D; `screen` candidates a step are run, 0 runs every neuron.

    `first` are the neurons tried as the first one (all where none are named). Ends as `select` does. Raises
    `ValueError` for an unknown distance.
    """
    if outputs.distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {outputs.distance!r}")
    size = len(outputs.members)
    trail = Trail(size, start)
    if trail.before is None:
        corners = [(outputs.error(np.eye(size)[k]), k) for k in (first or range(size))]
        trail.passes += len(corners)
        error, k = min(corners)
        a = np.eye(size)[k]
        trail.note(k, 1.0, 0.0, a, error)
        scale = error
    else:
        a, error, scale = trail.before.weights(), trail.before.errors[-1], trail.before.errors[0]
    while not trail.reason:
        if error <= max(stop.tolerance, 1e-14) * scale:
            trail.reason = "tolerance"
        elif len(trail) >= stop.steps:
            trail.reason = "steps"
        else:
            a, error = _stepped(outputs, trail, a, error, stop, screen, removal)
    return trail.path()


def _stepped(
    outputs: Outputs, trail: Trail, a: np.ndarray, error: float, stop: Stop, screen: int, removal: bool
) -> tuple[np.ndarray, float]:
    """Return weights and error after the best step among the candidates; the trail says where there is none."""
    full = np.count_nonzero(a) >= stop.neurons
    slopes = taylor_slopes(outputs, a)
    trail.passes += 2
    away = (a > 0) & (a < 1) if removal else np.zeros(len(a), dtype=bool)
    low = np.where(away, -a / np.where(away, 1 - a, 1.0), 0.0)
    useful = ((slopes < 0) & ((a > 0) | (not full))) | ((slopes > 0) & away)
    steepest = np.argsort(np.where(useful, -np.abs(slopes), 0.0), kind="stable")[: screen or len(a)]
    tried = [
        (*_searched(outputs, trail, a, error, int(k), float(slopes[k]), float(low[k])), int(k))
        for k in steepest
        if useful[k]
    ]
    found, gamma, k = min(tried, default=(error, 0.0, 0))
    if not found < error * (1 - LEAST):
        trail.reason = "neurons" if full else "no step lowers the error"
        return a, error
    after = moved(a, k, gamma)
    trail.note(k, gamma, float(a[k]), after, found)
    return after, found


def _searched(
    outputs: Outputs, trail: Trail, a: np.ndarray, error: float, k: int, slope: float, low: float
) -> tuple[float, float]:
    """Return the smallest error on the way to a vertex (or away from it), and the step size.

    One run there fits a parabola through the slope, its lowest point is run too; where nothing follows but readers and
    the distance is that of the logits, the parabola is exact. Steps too long are halved a few times.
    """
    step = 1.0 / (np.count_nonzero(a) + 1) if slope < 0 else low
    tried = [(outputs.error(moved(a, k, step)), step)]
    bend = (tried[0][0] - error - slope * step) / step**2
    best = float(np.clip(-slope / (2 * bend), low, 1.0)) if bend > 0 else step / 2
    tried.append((outputs.error(moved(a, k, best)), best))
    while min(tried)[0] >= error and len(tried) < HALVINGS:
        best /= 4
        tried.append((outputs.error(moved(a, k, best)), best))
    trail.passes += len(tried)
    return min(tried)
