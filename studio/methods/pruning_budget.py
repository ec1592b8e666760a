"""How many channels each layer keeps: one tolerance for all layers, or one share, so that the whole fits a budget."""

__all__ = ["ALLOCATIONS", "Curve", "allotted", "followed"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

ALLOCATIONS = ("tolerance", "uniform")
HALVINGS = 60
NOTHING = 1e-16
LOOSEST, TIGHTEST = 100.0, 1e-16  # errors between which the one that meets the budget is looked for


@dataclass(frozen=True, eq=False)
class Curve:
    """The smallest error of a layer with so many vertices kept, relative to the square of its output.

    A vertex is `groups` channels; all `size` vertices have error 0.
    """

    kept: Int[np.ndarray, " k"]
    errors: Float[np.ndarray, " k"]
    size: int
    groups: int = 1

    def vertices(self, tolerance: float) -> int:
        """Return the fewest vertices with an error of at most `tolerance`."""
        place = np.flatnonzero(self.errors <= tolerance)
        return int(self.kept[place[0]]) if len(place) else self.size


def followed(counts: Int[np.ndarray, " k"], errors: Float[np.ndarray, " k"], size: int, groups: int) -> Curve:
    """Return the curve of a path that ended early: from there on the error falls by a factor a vertex."""
    rest = np.arange(int(counts[-1]) + 1, size + 1)
    last = max(float(errors[-1]), NOTHING)
    fallen = last * (NOTHING / last) ** (np.arange(1, len(rest) + 1) / max(1, len(rest)))
    return Curve(np.concatenate([counts, rest]), np.concatenate([errors, fallen]), size, groups)


def allotted(
    curves: Mapping[int, Curve], allocation: str, share: float, cost: Callable[[Mapping[int, int]], float]
) -> dict[int, int]:
    """Return how many vertices each space keeps so that the network costs at most `share` of what it does.

    `cost` takes the channels of each space. With `tolerance` the error allowed, the same in every layer, is the
    smallest that meets the budget; with `uniform` the share of channels is the same. Raises `ValueError` for an unknown
    allocation, and where even one channel a layer costs too much.
    """
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation must be one of {', '.join(ALLOCATIONS)}, got {allocation!r}")

    loosest = max([LOOSEST, *(float(curve.errors.max()) for curve in curves.values())])

    def kept(level: float) -> dict[int, int]:
        if allocation == "uniform":
            return {space: max(1, int(level * curve.size + 1e-9)) for space, curve in curves.items()}
        least = loosest * (TIGHTEST / loosest) ** level
        return {space: curve.vertices(least) for space, curve in curves.items()}

    def price(vertices: Mapping[int, int]) -> float:
        return cost({space: count * curves[space].groups for space, count in vertices.items()})

    budget = share * cost({space: curve.size * curve.groups for space, curve in curves.items()}) * (1 + 1e-9)
    if share >= 1:
        return {space: curve.size for space, curve in curves.items()}
    low, high = 0.0, 1.0
    if price(kept(low)) > budget:
        raise ValueError(f"macs of {share:.0%} cannot be reached with one channel a layer: allow more")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if price(kept(middle)) <= budget else (low, middle)
    return _filled(kept(low), kept(high), curves, price, budget)


def _filled(
    low: dict[int, int], high: dict[int, int], curves: Mapping[int, Curve],
    price: Callable[[Mapping[int, int]], float], budget: float,
) -> dict[int, int]:  # fmt: skip
    """Return the vertices of the last level that fits, with spaces moved to the next one while the budget lasts."""
    found = dict(low)
    for space in sorted(curves, key=lambda space: -curves[space].size):
        trial = found | {space: max(high[space], found[space])}
        if price(trial) <= budget:
            found = trial
    return found
