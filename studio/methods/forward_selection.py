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

__all__ = ["KINDS", "RULES", "Selection", "Stop", "Trail", "centred", "moved", "ranked", "select", "settled"]

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

RULES = ("line_search", "fully_corrective", "fixed_step")
KINDS = ("add", "reweight", "shrink", "remove")
REFRESH = 50
LEAST = 1e-3  # share by which a step that only settles must lower the error
FLOOR = 1e-14  # of the first error: below it a difference is rounding
SMALL = 1e-12  # a weight below this is none


@dataclass(frozen=True)
class Stop:
    """When a selection ends: so many neurons, so many steps, or an error of `tolerance` times one neuron's.

    With `settle` a line search with all its neurons goes on among them until a step brings less than a thousandth.
    """

    neurons: int = 2**31
    tolerance: float = 0.0
    steps: int = 100_000
    settle: bool = False


@dataclass(frozen=True, eq=False)
class Selection:
    """The path of a selection, a step a row; the first step is the best single neuron.

    `touched` is the neuron of each step, `gammas` its step size, `kinds` one of `KINDS`, `errors` D after it (the sum
    of squares, not divided by their number), `kept` how many neurons then have a weight. `places` and `values` are the
    weights after each step, those above 0 alone. `reason` says what ended it, "" where more steps may follow. `passes`
    counts runs of the network, of which a selection on a Gram matrix needs none.
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
    passes: int = 0

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
    """Return the Gram matrix of the contributions minus their target, in float64.

    The target is their mean (the layer's own output on the same inputs); with `cross` it is the mean plus a difference
    d to the original network's output: `cross` are <contribution_i, d> and `excess` is <d, d>. Raises `ValueError`
    where the matrix is not finite.
    """
    if not np.isfinite(gram).all():
        raise ValueError("the contributions must be finite: the network gives inf or NaN on these examples")
    gram = gram.astype(np.float64)
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
    while rule == "line_search" and stop.settle and state.trail.reason == "neurons":
        state.settle()
    return state.trail.path()


@dataclass(frozen=True, eq=False)
class _Move:
    """A step about to be made; `weights` where they are not simply moved towards one neuron."""

    neuron: int
    gamma: float
    error: float
    weights: np.ndarray | None = None


def ranked(gram: Float[np.ndarray, "n n"], order: Int[np.ndarray, " n"], stop: Stop) -> Selection:
    """Return the path that takes neurons in a given order and gives those taken equal weights, as baselines do."""
    count = min(len(order), stop.neurons, stop.steps)
    ordered = gram[np.ix_(order[:count], order[:count])].astype(np.float64)
    numbers = np.arange(1, count + 1)
    errors = np.maximum(np.diagonal(ordered.cumsum(axis=0).cumsum(axis=1)), 0.0) / numbers**2
    places = tuple(np.sort(order[:number]) for number in numbers)
    return Selection(
        len(gram), tuple(order[:count].tolist()), tuple((1 / numbers).tolist()), ("add",) * count,
        tuple(errors.tolist()), tuple(numbers.tolist()), places,
        tuple(np.full(number, 1 / number) for number in numbers), "neurons",
    )  # fmt: skip


class Trail:
    """The steps of a selection as they are made, begun anew or after an earlier path."""

    def __init__(self, size: int, before: Selection | None) -> None:
        self.size, self.before = size, before if before is not None and len(before) else None
        self.reason, self.passes = "", 0 if self.before is None else self.before.passes
        self._steps: list[tuple[int, float, str, float, int, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._steps) + (len(self.before) if self.before is not None else 0)

    def note(self, neuron: int, gamma: float, was: float, a: Float[np.ndarray, " n"], error: float) -> None:
        """Write a step down: towards which neuron, how far, its weight before, and all weights after it."""
        kind = "add" if was == 0.0 else "reweight" if gamma > 0 else "shrink" if a[neuron] > 0 else "remove"
        places = np.flatnonzero(a)
        self._steps.append((neuron, float(gamma), kind, float(error), len(places), places, a[places]))

    def path(self) -> Selection:
        """Return the whole path."""
        columns: tuple = tuple(zip(*self._steps, strict=True)) if self._steps else ((),) * 7
        if self.before is not None:
            old = self.before
            earlier = (old.touched, old.gammas, old.kinds, old.errors, old.kept, old.places, old.values)
            columns = tuple(before + after for before, after in zip(earlier, columns, strict=True))
        return Selection(self.size, *columns, reason=self.reason, passes=self.passes)


def moved(a: Float[np.ndarray, " n"], neuron: int, gamma: float) -> Float[np.ndarray, " n"]:
    """Return the weights (1 - gamma) a + gamma e_k, with what is nearly 0 set to 0 and the sum to 1."""
    after = (1 - gamma) * a
    after[neuron] += gamma
    return settled(after)


def settled(a: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return weights with what is nearly 0 set to 0 and the sum to 1."""
    a = np.where(a < SMALL, 0.0, a)
    return a / a.sum()


class _State:
    """What a selection holds between its steps: a, p = G a, q = aᵀ G a, and the steps so far."""

    def __init__(self, gram: np.ndarray, removal: bool, start: Selection | None) -> None:
        self.gram, self.removal, self.diagonal = gram, removal, np.diagonal(gram).copy()
        self.trail = Trail(len(gram), start)
        if self.trail.before is None:
            first = int(self.diagonal.argmin())
            self.a = np.zeros(len(gram))
            self.a[first] = 1.0
            self.refresh()
            self.scale = self.q
            self.trail.note(first, 1.0, 0.0, self.a, self.q)
        else:
            self.a, self.scale = self.trail.before.weights(), self.trail.before.errors[0]
            self.refresh()

    def refresh(self) -> None:
        """Compute p and q from the weights: what the recurrences should give."""
        self.p = self.gram @ self.a
        self.q = max(float(self.a @ self.p), 0.0)

    def ended(self, stop: Stop) -> bool:
        """Return whether the path ends here, and note why."""
        trail = self.trail
        if not trail.reason:
            if self.q <= FLOOR * self.scale:
                trail.reason = "exact"
            elif self.q <= stop.tolerance * self.scale:
                trail.reason = "tolerance"
            elif len(trail) >= stop.steps:
                trail.reason = "steps"
        return bool(trail.reason)

    def take(self, move: "_Move", stop: Stop) -> None:
        """Make a step, unless it lowers nothing or exceeds the number of neurons."""
        k, gamma, was = move.neuron, move.gamma, float(self.a[move.neuron])
        if gamma == 0.0:
            self.trail.reason = "no step lowers the error"
            return
        after = moved(self.a, k, gamma) if move.weights is None else settled(move.weights)
        if np.count_nonzero(after) > stop.neurons:
            self.trail.reason = "neurons"
            return
        self.a = after
        if move.weights is not None or len(self.trail) % REFRESH == 0 or after[k] == 0.0:
            self.refresh()
        else:
            self.p = (1 - gamma) * self.p + gamma * self.gram[:, k]
            self.q = max(move.error, 0.0)
        self.trail.note(k, gamma, was, after, self.q)

    def settle(self) -> None:
        """Make the best step among the neurons that are kept, or end the path with them."""
        move = _searched(self, among=self.a > 0)
        if move.gamma == 0.0 or move.error > (1 - LEAST) * self.q:
            self.trail.reason = "neurons, settled"
            return
        was = float(self.a[move.neuron])
        self.a = moved(self.a, move.neuron, move.gamma)
        self.refresh()
        self.trail.note(move.neuron, move.gamma, was, self.a, self.q)


def _searched(state: _State, among: np.ndarray | None = None) -> _Move:
    """Return the step of exact line search: the neuron, of all or some, and the step size that lower the error most."""
    a, rise = state.a, state.q - state.p
    bend = np.maximum(rise - state.p + state.diagonal, 0.0)
    flat = bend <= FLOOR * max(state.scale, np.finfo(float).tiny)
    low = -a / np.where(a < 1, 1 - a, 1.0) if state.removal else 0.0
    gamma = np.where(flat, 0.0, np.clip(rise / np.where(flat, 1.0, bend), low, 1.0))
    gamma = gamma if among is None else np.where(among, gamma, 0.0)
    error = state.q - gamma * (2 * rise - gamma * bend)
    k = int(error.argmin())
    helps = error[k] < state.q * (1 - 1e-12)
    return _Move(k, float(gamma[k]) if helps else 0.0, float(error[k]))


def _fixed(state: _State) -> _Move:
    """Return the step of the earlier paper: size 1 / (n + 1), towards whichever neuron is then best."""
    gamma = 1.0 / (len(state.trail) + 1)
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
    better = after <= error[k] * (1 + 1e-9)
    return _Move(k, float(gamma[k]), after if better else float(error[k]), weights if better else None)


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
