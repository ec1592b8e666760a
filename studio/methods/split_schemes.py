"""The best ways to split a neuron into two, three or four weighted copies, in closed form from two curvatures.

Wu, Ye, Lei, Lee and Liu, "Steepest Descent Neural Architecture Optimization: Escaping Local Optimum with Signed Neural
Splitting" (S3D), 2020, arXiv 2003.10392; with c = 1 it is Wu, Wang and Liu, "Splitting Steepest Descent for Growing
Neural Architectures" (S2D), 2019, arXiv 1910.02366.

    replace   sigma(theta)  by  sum_k w_k sigma(theta + eps d_k)
    change    L_new - L = eps^2 / 2 G + O(eps^3),     G = sum_k w_k d_k^T S d_k,     S the neuron's splitting matrix
    subject   sum w_k = 1,   sum |w_k| <= c,   sum w_k d_k = 0,   |d_k| <= 1

Let n be the negative mass, so that the positive mass is 1 + n and n <= (c - 1) / 2; l, u the smallest and the largest
eigenvalue of S, p and q their unit eigenvectors, r = n / (1 + n) = (c - 1) / (c + 1) at the bound.

    any split   G >= (1 + n) min(l, 0) - n max(u, 0): all positive mass in the lowest curvature, all negative in the
                highest. Nothing with more copies goes below; four copies reach it.
    binary+     the pair +p, -p with equal weights:  G = l.
    binary-     zero mean asks (1 + n) d_1 = n d_2, so d_2 = q, d_1 = r q:  G = (n^2 / (1 + n) - n) u = -r u.
    triplet+    all positive mass on +p, -p and the negative copy left where it was:  G = (1 + n) l.
    triplet-    all negative mass on +q, -q and the positive copy left where it was:  G = -n u.
    mixed       the negative copy at t q, the positive pair at r t q +/- h p. Unit length leaves h^2 = 1 - r^2 t^2, and
                G = (1 + n) l - t^2 r (u + n l) is linear in t^2: t = 0 is triplet+, t = 1 gives l + r (l - u).
    quartet     +p, -p positive and +q, -q negative:  G = (1 + n) l - n u.

Where they lower the loss, all fall (or stay) as n grows, hence n = (c - 1) / 2. That the best of two and of three
copies is among these was also confirmed by a numerical optimiser (see the tests). Mixed is the best of three copies
for n < u / |l| < 4 c / (c - 1)^2, l < 0 < u.

We had the paper's abstract but not its theorems; everything here was derived again. Its binary, triplet and quartet
splits are known from descriptions by others. The mixed triplet is our derivation; whether the paper lists it was not
seen. Binary- and mixed are not symmetric: they keep a term in eps^3, so their prediction is good for smaller eps only.

A neuron with one parameter has l = u and p parallel to q; then mixed and quartet promise l, never less than a triplet
does, so `best_gains` never chooses them there. It chooses them only where l < 0 < u, where p and q are orthogonal.
"""

__all__ = ["COPIES", "SCHEMES", "Scheme", "best_gains", "scheme", "scheme_gains"]

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCHEMES = ("binary+", "binary-", "triplet+", "triplet-", "mixed", "quartet")
COPIES = (2, 2, 3, 3, 3, 4)
ROUNDING = 1e-5


@dataclass(frozen=True)
class Scheme:
    """One split: copy k has weight `weights[k]` and moves by `along_low[k]` p + `along_high[k]` q, times eps.

    p and q are orthogonal unit eigenvectors of the smallest and the largest eigenvalue of the splitting matrix.
    """

    weights: tuple[float, ...]
    along_low: tuple[float, ...]
    along_high: tuple[float, ...]


def scheme(name: str, c: float) -> Scheme:
    """Return the weights and displacements of a split of `SCHEMES` whose absolute weights sum to c at most.

    Raises ValueError for an unknown name, for c below 1, and for a split with negative weights where c is 1.
    """
    _check_bound(c)
    if name not in SCHEMES:
        raise ValueError(f"name must be one of {', '.join(SCHEMES)}, got {name!r}")
    if c == 1 and name != "binary+":
        raise ValueError(f"c must be above 1 for the split {name!r}, which has negative weights; c = 1 allows binary+")
    plus, minus, shift = (c + 1) / 2, (c - 1) / 2, (c - 1) / (c + 1)
    half, less = plus / 2, -minus / 2
    if name == "binary+":
        return Scheme((0.5, 0.5), (1.0, -1.0), (0.0, 0.0))
    if name == "binary-":
        return Scheme((-minus, plus), (0.0, 0.0), (1.0, shift))
    if name == "triplet+":
        return Scheme((half, half, -minus), (1.0, -1.0, 0.0), (0.0, 0.0, 0.0))
    if name == "triplet-":
        return Scheme((less, less, plus), (0.0, 0.0, 0.0), (1.0, -1.0, 0.0))
    if name == "mixed":
        side = math.sqrt(1 - shift**2)
        return Scheme((half, half, -minus), (side, -side, 0.0), (shift, shift, 1.0))
    return Scheme((half, half, less, less), (1.0, -1.0, 0.0, 0.0), (0.0, 0.0, 1.0, -1.0))


def scheme_gains(low: Float[Tensor, " n"], high: Float[Tensor, " n"], c: float) -> Float[Tensor, "n s"]:
    """Return G / 2 of each split of `SCHEMES` for neurons with extreme eigenvalues `low` and `high`.

    The loss changes by gain * eps^2 to second order, so a negative gain is a decrease. Each column is exactly what
    `scheme` does when p and q are orthogonal, better or not: a quartet also pays for a pair that moves the wrong way.
    Where c is 1 all columns but binary+ are 0, as those splits are not available.

    Raises ValueError for c below 1, values that are not finite, and `low` above `high` by more than rounding.
    """
    _check_bound(c)
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        raise ValueError("low and high must be finite: look for NaN in the splitting matrices before choosing splits")
    if bool((low - high > ROUNDING * torch.maximum(low.abs(), high.abs())).any()):
        raise ValueError("low must not exceed high: pass the smallest eigenvalues first and the largest second")
    plus, minus, shift = (c + 1) / 2, (c - 1) / 2, (c - 1) / (c + 1)
    doubled = [low, -shift * high, plus * low, -minus * high, low + shift * (low - high), plus * low - minus * high]
    if c == 1:
        doubled[1:] = [torch.zeros_like(low)] * (len(SCHEMES) - 1)
    return torch.stack(doubled, dim=1) / 2


def best_gains(
    low: Float[Tensor, " n"], high: Float[Tensor, " n"], c: float, copies: int
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the lowest gain of each neuron with at most `copies` copies, and its place in `SCHEMES`.

    Gain 0 and place -1 say that no split lowers the loss. Among equal gains the first of `SCHEMES` wins, the one with
    the fewest copies. Four copies are the optimum over any number of copies.

    Raises ValueError for `copies` other than 2, 3, 4, and as `scheme_gains` does.
    """
    if copies not in (2, 3, 4):
        raise ValueError(f"copies must be 2, 3 or 4, got {copies}: a fifth copy gains nothing more")
    gains = scheme_gains(low, high, c)[:, [k for k, needed in enumerate(COPIES) if needed <= copies]]
    place = gains.argmin(dim=1)
    gain = gains.gather(1, place[:, None])[:, 0]
    helps = gain < 0
    return torch.where(helps, gain, torch.zeros_like(gain)), torch.where(helps, place, -torch.ones_like(place))


def _check_bound(c: float) -> None:
    """Raise ValueError unless c is a number of at least 1."""
    if not (math.isfinite(c) and c >= 1):
        raise ValueError(f"c must be a finite number of at least 1, got {c}: the weights of the copies sum to 1")
