"""Greedy forward selection on a Gram matrix: few neurons, re-weighted, whose sum imitates the sum of all.

Ye, Wu and Liu, "Greedy Optimization Provably Wins the Lottery: Logarithmic Number of Winning Tickets is Enough",
NeurIPS 2020, arXiv 2010.15969 (local imitation with exact line search); the fixed step is that of Ye et al., "Good
Subnetworks Provably Exist", ICML 2020, arXiv 2003.01794. With phi_i a neuron's contribution minus the target's row,

    D[a] = aᵀ G a,   G_ij = <phi_i, phi_j>,   a >= 0,  sum a = 1,       p = G a,  q = aᵀ p
    D[(1 - g) a + g e_k] = q - 2 g (q - p_k) + g² (q - 2 p_k + G_kk)
    g_k = clip((q - p_k) / (q - 2 p_k + G_kk), lo_k, 1),                k = argmin_k D

lo_k = -a_k / (1 - a_k) lets a step shrink a neuron or remove it, 0 does not. A step costs O(N). The public code of the
earlier paper runs a whole network for every candidate and masks what it drops; nothing of that is needed here.
`fully_corrective` is ours: after each pick a is solved anew on its support, by Wolfe's active sets (1976), so that it
ends exactly, with at most rank + 1 neurons (Carathéodory). A neuron equal to the current point has denominator 0 and
step 0. Everything is float64: the error falls over twelve orders, and differences in float32 would be its end.
"""

__all__ = ["KINDS", "RULES", "Selection", "Stop", "centred", "select"]

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

RULES = ("line_search", "fully_corrective", "fixed_step")
KINDS = ("add", "reweight", "shrink", "remove")
REFRESH = 50
FLOOR = 1e-14  # of the first error: below it a difference is rounding
SMALL = 1e-12  # a weight below this is none


@dataclass(frozen=True)
class Stop:
    """When a selection ends: so many neurons, so many steps, or an error of `tolerance` times one neuron's."""

    neurons: int = 2**31
    tolerance: float = 0.0
    steps: int = 100_000


@dataclass(frozen=True, eq=False)
class Selection:
    """The path of a selection, a step a row; the first step is the best single neuron.

    `touched` is the neuron of each step, `gammas` its step size, `kinds` one of `KINDS`, `errors` D after it (the sum
    of squares, not divided by their number), `kept` how many neurons then have a weight. `places` and `values` are the
    weights after each step, those above 0 alone. `reason` says what ended it, "" where more steps may follow.
    """

    size: int
    touched: tuple[int, ...] = ()
    gammas: tuple[float, ...] = ()
    kinds: tuple[str, ...] = ()
    errors: tuple[float, ...] = ()
    kept: tuple[int, ...] = ()
    places: tuple[np.ndarray, ...] = field(default=(), repr=False)
    values: tuple[np.ndarray, ...] = field(default=(), repr=False)
    reason: str = ""

    def __len__(self) -> int:
        return len(self.touched)

    def weights(self, step: int = -1) -> Float[np.ndarray, " n"]:
        """Return the weights a after a step, by default the last."""
        a = np.zeros(self.size)
        a[self.places[step]] = self.values[step]
        return a

    def at(self, neurons: int) -> int:
        """Return the step with the smallest error among those that keep at most so many neurons."""
        allowed = [(error, step) for step, error in enumerate(self.errors) if self.kept[step] <= neurons]
        if not allowed:
            raise ValueError(f"neurons must be at least 1, got {neurons}: a layer cannot be empty")
        return min(allowed)[1]

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of neurons kept, ascending, and the smallest error with at most so many."""
        counts = np.unique(self.kept)
        order = np.searchsorted(counts, self.kept)
        lowest = np.full(len(counts), np.inf)
        np.minimum.at(lowest, order, self.errors)
        return counts, np.minimum.accumulate(lowest)


def centred(
    gram: Float[np.ndarray, "n n"], cross: Float[np.ndarray, " n"] | None = None, excess: float = 0.0
) -> Float[np.ndarray, "n n"]:
    """Return the Gram matrix of the contributions minus their target.

    The target is their mean (the layer's own output on the same inputs); with `cross` it is the mean plus a difference
    d to the original network's output: `cross` are <contribution_i, d> and `excess` is <d, d>. Raises `ValueError`
    where the matrix is not finite.
    """
    if not np.isfinite(gram).all():
        raise ValueError("the contributions must be finite: the network gives inf or NaN on these examples")
    rows = gram.mean(axis=1)
    found = gram - rows[:, None] - rows[None] + rows.mean()
    if cross is not None:
        away = cross - cross.mean()
        found = found - away[:, None] - away[None] + excess
    return found


def select(
    gram: Float[np.ndarray, "n n"], rule: str, stop: Stop, removal: bool = True, start: Selection | None = None
) -> Selection:
    """Return the path of greedy selection on a centred Gram matrix, from its first neuron or on from `start`.

    Rules are `RULES`; `removal` lets a line search shrink and remove. The path ends where `stop` says, or where no step
    lowers the error; a step that would exceed `stop.neurons` is not made. Raises `ValueError` for an unknown rule, an
    empty layer or no neuron at all to keep.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if not len(gram) or stop.neurons < 1:
        raise ValueError("a layer must keep at least 1 of its neurons: ask for more")
    state = _State(np.ascontiguousarray(gram, dtype=np.float64), removal, start)
    move = {"line_search": _searched, "fixed_step": _fixed, "fully_corrective": _corrected}[rule]
    while not state.ended(stop):
        state.take(move(state), stop)
    return state.path()


@dataclass(frozen=True, eq=False)
class _Move:
    """A step about to be made; `weights` where they are not simply moved towards one neuron."""

    neuron: int
    gamma: float
    error: float
    weights: np.ndarray | None = None


class _State:
    """What a selection holds between its steps: a, p = G a, q = aᵀ G a, and the steps so far."""

    def __init__(self, gram: np.ndarray, removal: bool, start: Selection | None) -> None:
        self.gram, self.removal, self.diagonal = gram, removal, np.diagonal(gram).copy()
        self.before = start if start is not None and len(start) else None
        self.steps: list[tuple[int, float, str, float, int, np.ndarray, np.ndarray]] = []
        self.reason = ""
        if self.before is None:
            first = int(self.diagonal.argmin())
            self.a = np.zeros(len(gram))
            self.a[first] = 1.0
            self.scale = max(float(self.diagonal[first]), 0.0)
        else:
            self.a, self.scale = self.before.weights(), max(self.before.errors[0], 0.0)
        self.refresh()
        if self.before is None:
            self.note(first, 1.0, "add")

    @property
    def done(self) -> int:
        """Return how many steps the path has."""
        return len(self.steps) + (len(self.before) if self.before is not None else 0)

    def refresh(self) -> None:
        """Compute p and q from the weights: what the recurrences should give."""
        self.p = self.gram @ self.a
        self.q = max(float(self.a @ self.p), 0.0)

    def ended(self, stop: Stop) -> bool:
        """Return whether the path ends here, and note why."""
        if not self.reason:
            if self.q <= max(stop.tolerance, FLOOR) * self.scale:
                self.reason = "tolerance" if self.q > FLOOR * self.scale else "exact"
            elif self.done >= stop.steps:
                self.reason = "steps"
        return bool(self.reason)

    def take(self, move: _Move, stop: Stop) -> None:
        """Make a step, unless it lowers nothing or exceeds the number of neurons."""
        k, gamma = move.neuron, move.gamma
        if gamma == 0.0 or not move.error < np.inf:
            self.reason = "no step lowers the error"
            return
        was = self.a[k]
        after = move.weights
        if after is None:
            after = (1 - gamma) * self.a
            after[k] = 0.0 if self.removal and gamma < 0 and was + gamma * (1 - was) < SMALL else after[k] + gamma
        after = np.where(after < SMALL, 0.0, after)
        if np.count_nonzero(after) > stop.neurons:
            self.reason = "neurons"
            return
        kind = "add" if was == 0.0 else "reweight" if gamma > 0 else "shrink" if after[k] > 0 else "remove"
        self.a = after / after.sum()
        if move.weights is not None or self.done % REFRESH == 0 or kind == "remove":
            self.refresh()
        else:
            self.p = (1 - gamma) * self.p + gamma * self.gram[:, k]
            self.q = max(move.error, 0.0)
        self.note(k, gamma, kind)

    def note(self, k: int, gamma: float, kind: str) -> None:
        """Write a step down."""
        places = np.flatnonzero(self.a)
        self.steps.append((k, gamma, kind, self.q, len(places), places, self.a[places]))

    def path(self) -> Selection:
        """Return the whole path."""
        columns = tuple(zip(*self.steps, strict=True)) if self.steps else ((),) * 7
        if self.before is not None:
            old = self.before
            earlier = (old.touched, old.gammas, old.kinds, old.errors, old.kept, old.places, old.values)
            columns = tuple(before + tuple(after) for before, after in zip(earlier, columns, strict=True))
        return Selection(len(self.gram), *columns, reason=self.reason)  # type: ignore[arg-type]


def _searched(state: _State) -> _Move:
    """Return the step of exact line search: the neuron and the step size that together lower the error most."""
    a, rise = state.a, state.q - state.p
    bend = np.maximum(rise - state.p + state.diagonal, 0.0)
    flat = bend <= FLOOR * max(state.scale, np.finfo(float).tiny)
    low = -a / np.where(a < 1, 1 - a, 1.0) if state.removal else 0.0
    gamma = np.where(flat, 0.0, np.clip(rise / np.where(flat, 1.0, bend), low, 1.0))
    error = state.q - gamma * (2 * rise - gamma * bend)
    k = int(error.argmin())
    helps = error[k] < state.q * (1 - 1e-12)
    return _Move(k, float(gamma[k]) if helps else 0.0, float(error[k]))


def _fixed(state: _State) -> _Move:
    """Return the step of the earlier paper: size 1 / (n + 1), towards whichever neuron is then best."""
    gamma = 1.0 / (state.done + 1)
    rise = state.q - state.p
    error = state.q - gamma * (2 * rise - gamma * (rise - state.p + state.diagonal))
    k = int(error.argmin())
    return _Move(k, gamma, float(error[k]))


def _corrected(state: _State) -> _Move:
    """Return the step of line search towards a new neuron, followed by the best weights on the support."""
    rise = state.q - state.p
    bend = np.maximum(rise - state.p + state.diagonal, 0.0)
    open_ = (state.a == 0.0) & (bend > FLOOR * state.scale) & (rise > 0)
    gamma = np.where(open_, np.clip(rise / np.where(open_, bend, 1.0), 0.0, 1.0), 0.0)
    error = state.q - gamma * (2 * rise - gamma * bend)
    k = int(error.argmin())
    if gamma[k] == 0.0 or not error[k] < state.q * (1 - 1e-12):
        return _Move(k, 0.0, state.q)
    a = (1 - gamma[k]) * state.a
    a[k] += gamma[k]
    weights = _solved(state.gram, a)
    after = float(weights @ state.gram @ weights)
    return _Move(k, float(gamma[k]), after, weights) if after <= error[k] * (1 + 1e-9) else _Move(k, gamma[k], error[k])


def _solved(gram: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Return the weights that minimise aᵀ G a over a >= 0, sum a = 1 on the support of a (Wolfe's minor cycle)."""
    a = a.copy()
    for _ in range(np.count_nonzero(a)):
        support = np.flatnonzero(a)
        best = _affine(gram[np.ix_(support, support)])
        if (best > SMALL).all():
            a[support] = best
            return a
        now = a[support]
        falling = best <= SMALL
        steps = np.where(falling, now / np.where(falling, now - best, 1.0), np.inf)
        length = min(float(steps.min()), 1.0)
        now = now + length * (best - now)
        now[steps <= length * (1 + 1e-12)] = 0.0
        a[support] = np.maximum(now, 0.0)
        a /= a.sum()
    return a


def _affine(gram: np.ndarray) -> np.ndarray:
    """Return the weights of sum 1, of any sign, that minimise aᵀ G a: G + t 1 1ᵀ has the same minimiser."""
    n = len(gram)
    lifted = gram + max(float(np.trace(gram)) / n, np.finfo(float).tiny)
    try:
        found = np.linalg.solve(lifted, np.ones(n))
    except np.linalg.LinAlgError:
        found = np.linalg.lstsq(lifted, np.ones(n), rcond=None)[0]
    total = found.sum()
    return found / total if np.isfinite(total) and total > 0 else np.full(n, 1.0 / n)
