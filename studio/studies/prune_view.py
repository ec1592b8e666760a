"""What a network being pruned looks like: its layers, the hull of the newest one, the decay of errors, its curves."""

__all__ = ["prune_curves", "pruning_scene"]

import numpy as np

from studio.methods.decay import fit_rate
from studio.methods.forward_selection import KINDS
from studio.methods.pruning_state import CUT, TRAINED, TUNED, Pruned
from studio.scenes import Channels, Curves, Decay, Imitation, Pruning, Series


def pruning_scene(
    snapshot: Pruned, names: tuple[tuple[str, ...], tuple[tuple[str, str], ...]], rule: str
) -> Pruning:  # fmt: skip
    """Return the layers of a snapshot, the newest layer's path and the decays; `names` are of layers and fixed ones."""
    growable, fixed = names
    layers = tuple(
        Channels(name, _weights(snapshot, place), _state(snapshot, place), _ended(snapshot, place))
        for place, name in enumerate(growable)
    )
    before, now = _macs(snapshot)
    right = 100 * float(snapshot.curve[-1, 6])
    title = f"{sum(snapshot.widths):,} of {sum(snapshot.sizes):,} channels, {right:.1f} % right"
    held = tuple(Channels(name, np.ones(0), "fixed", why) for name, why in fixed)
    return Pruning(title, layers + held, (before, now), _imitation(snapshot, growable, rule), _decays(snapshot))


def prune_curves(snapshot: Pruned) -> tuple[Curves, ...]:
    """Return accuracy against cost before and after tuning, and the loss of every training step."""
    rows = snapshot.curve.numpy()
    kinds, cost, right = rows[:, 1], rows[:, 3], 100 * rows[:, 6]
    trained = np.flatnonzero(kinds == TRAINED)[-1:]
    cuts, tuned = np.flatnonzero(kinds == CUT), np.flatnonzero(kinds == TUNED)
    start = np.concatenate([trained, cuts])
    series = [Series("pruned", cost[start], right[start], dots=len(start) == 1)]
    if len(tuned):
        series.append(Series("and tuned", cost[tuned], right[tuned], dots=True))
    found = (Curves("Accuracy against cost", "multiply-accumulates", "% right", tuple(series)),)
    if not len(snapshot.losses):
        return found
    steps = np.arange(1, len(snapshot.losses) + 1, dtype=np.float64)
    loss = np.maximum(snapshot.losses.double().numpy(), 1e-16)
    return (*found, Curves("Training loss", "training step", "loss", (Series("loss", steps, loss),), log_y=True))


def _macs(snapshot: Pruned) -> tuple[float, float]:
    rows = snapshot.curve
    return float(rows[rows[:, 1] == TRAINED][-1, 3]), float(rows[-1, 3])


def _weights(snapshot: Pruned, place: int) -> np.ndarray:
    return snapshot.gates[place].double().numpy()


def _ended(snapshot: Pruned, place: int) -> str:
    return f"its selection ended by: {snapshot.reasons[place]}" if snapshot.reasons[place] else ""


def _state(snapshot: Pruned, place: int) -> str:
    if snapshot.errors[place] >= 0:
        return "done"
    return "now" if place == snapshot.layer and snapshot.phase == "selecting" else "waiting"


def _imitation(snapshot: Pruned, names: tuple[str, ...], rule: str) -> Imitation | None:
    if not len(snapshot.moments):
        return None
    steps = snapshot.moments.numpy()
    first = max(float(snapshot.path_errors[0]), np.finfo(float).tiny)
    return Imitation(
        layer=names[snapshot.layer], rule=rule, positions=snapshot.positions.double().numpy(),
        target=np.zeros(2), shown=snapshot.shown, steps=steps,
        touched=snapshot.touched.numpy()[steps], kinds=tuple(KINDS[kind] for kind in snapshot.kinds.numpy()[steps]),
        kept=snapshot.kept.numpy()[steps], errors=snapshot.path_errors.double().numpy()[steps] / first,
        weights=snapshot.weights.double().numpy(),
    )  # fmt: skip


def _decays(snapshot: Pruned) -> tuple[Decay, ...]:
    rules, found = snapshot.decay_rules, []
    for index, (points, dimension) in enumerate(
        zip(snapshot.decay_points, snapshot.decay_dimensions, strict=True)
    ):  # fmt: skip
        lines = slice(index * len(rules), (index + 1) * len(rules))
        kept = tuple(line.numpy() for line in snapshot.decay_kept[lines])
        errors = tuple(line.double().numpy() for line in snapshot.decay_errors[lines])
        fit = fit_rate(kept[0], errors[0])
        found.append(Decay(points, dimension, rules, kept, errors, fit.exp_rate, fit.exp_r2, fit.power, fit.power_r2))
    return tuple(found)
