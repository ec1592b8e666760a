"""How fast an imitation error falls with the neurons kept: exponential or power law, and what can be proved of it.

With the target in the interior of the hull (a ball of radius r about it, inside the affine hull) and no two vertices
further apart than diam, exact line search gives D[a_n] <= D[a_1] (1 - r^2 / diam^2)^(n - 1): take the vertex s of
smallest <x, s> <= -r |x|; the best step towards it leaves |x|^2 - <x, x - s>^2 / |x - s|^2. (The rate of Ye, Wu and
Liu, arXiv 2010.15969; the argument is ours.) r / diam shrinks fast with the dimension, so that the exponential is seen
only where neurons far outnumber it.
"""

__all__ = ["Certificate", "RateFit", "fit_rate", "interior_certificate", "rank_of"]

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

FLOOR = 1e-12  # of the first error: fits through rounding destroy R2
FEWEST = 3


@dataclass(frozen=True)
class RateFit:
    """Two straight lines through log errors: exp(-exp_rate n) and n ** -power, with their R2; NaN with few points."""

    exp_rate: float
    exp_r2: float
    power: float
    power_r2: float

    @property
    def preferred(self) -> str:
        """Return which line fits better, "" where there are too few points."""
        if not np.isfinite(self.exp_r2 + self.power_r2):
            return ""
        return "exponential" if self.exp_r2 >= self.power_r2 else "power law"


@dataclass(frozen=True)
class Certificate:
    """The radius of the largest ball about the target inside the hull, the hull's diameter, and 1 - r^2 / diam^2."""

    radius: float
    diameter: float
    ratio: float


def fit_rate(n: Int[np.ndarray, " k"], errors: Float[np.ndarray, " k"], floor: float = FLOOR) -> RateFit:
    """Return the two fits of errors against n, over errors above `floor` times the first."""
    seen = errors > floor * errors[0] if len(errors) else np.zeros(0, dtype=bool)
    x, y = n[seen].astype(np.float64), np.log(errors[seen])
    if len(x) < FEWEST or np.ptp(x) == 0:
        return RateFit(*(float("nan"),) * 4)
    exp_rate, exp_r2 = _line(x, y)
    power, power_r2 = _line(np.log(x), y)
    return RateFit(-exp_rate, exp_r2, -power, power_r2)


def interior_certificate(rows: Float[np.ndarray, "n d"]) -> Certificate:
    """Return what the theorem promises for contributions (minus the target) that span a space of few dimensions.

    Exact, by the facets of the hull, and so for d up to 6 or so. A target outside has radius 0 and ratio 1. Raises
    `ValueError` where the contributions lie in a smaller space than d: project them first.
    """
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    diameter = float(pdist(rows).max()) if len(rows) > 1 else 0.0
    if rows.shape[1] == 1:
        inside = min(float(rows.max()), float(-rows.min()))
    else:
        try:
            inside = float(-ConvexHull(rows).equations[:, -1].max())
        except QhullError as error:
            raise ValueError(
                f"the contributions do not span {rows.shape[1]} dimensions: project them to fewer"
            ) from error
    radius = max(inside, 0.0)
    return Certificate(radius, diameter, 1 - (radius / diameter) ** 2 if diameter else 1.0)


def rank_of(gram: Float[np.ndarray, "n n"]) -> int:
    """Return the effective dimension: how many directions the centred contributions have."""
    return int(np.linalg.matrix_rank(gram, hermitian=True))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    slope, offset = np.polyfit(x, y, 1)
    spread = float(np.square(y - y.mean()).sum())
    return float(slope), 1 - float(np.square(y - slope * x - offset).sum()) / spread if spread else 1.0
