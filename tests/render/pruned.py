"""Networks that are pruned, to draw: random contributions, chosen by a real greedy line search."""

__all__ = ["contributions", "decay_of", "imitated", "named", "pruned", "searched"]

from dataclasses import replace

import numpy as np

from studio.scenes import Channels, Decay, Imitation, Pruning


def contributions(n, dimension, seed=0):
    """Return n points of so many dimensions around their mean."""
    points = np.random.default_rng([seed, n, dimension]).normal(size=(n, dimension))
    points *= np.geomspace(3.0, 1.0, dimension)
    return points - points.mean(axis=0)


def searched(points, steps, fixed=False):
    """Return for each step the channel, what was done with it, the error left and the weights."""
    gram = points @ points.T
    n, first = len(gram), int(gram.diagonal().argmin())
    a = np.eye(n)[first]
    found = [(first, "add", gram[first, first], a)]
    for step in range(1, steps):
        p = gram @ a
        q = a @ p
        curve = np.maximum(q - 2 * p + gram.diagonal(), 1e-15)
        low = np.where(a < 1, -a / np.maximum(1 - a, 1e-15), 0.0) if not fixed else 0.0
        moves = np.full(n, 1 / (step + 1)) if fixed else np.clip((q - p) / curve, low, 1)
        errors = q - 2 * moves * (q - p) + moves**2 * curve
        k = int(errors.argmin())
        had, a = a[k] > 0, (1 - moves[k]) * a + moves[k] * np.eye(n)[k]
        if a[k] < 1e-13:
            a[k] = 0.0
        kind = "add" if not had else "reweight" if moves[k] > 0 else "shrink" if a[k] > 0 else "remove"
        found.append((k, kind, max(float(errors[k]), 0.0), a / a.sum()))
    return found


def imitated(n=64, dimension=8, steps=40, seed=0, layer="hidden 1"):
    """Return the path of a layer of n channels."""
    points = contributions(n, dimension, seed)
    path = searched(points, steps)
    axes = np.linalg.svd(points, full_matrices=False)[2][:2]
    flat = np.zeros((n, 2))
    flat[:, : len(axes)] = points @ axes.T
    shown = float((flat**2).sum() / max((points**2).sum(), 1e-12))
    errors = np.array([error for _, _, error, _ in path])
    return Imitation(
        layer, "line search", flat, np.zeros(2), shown, np.arange(1, len(path) + 1),
        np.array([k for k, _, _, _ in path]), tuple(kind for _, kind, _, _ in path),
        np.array([(a > 0).sum() for _, _, _, a in path]), errors / max(errors[0], 1e-300),
        np.stack([a for _, _, _, a in path]),
    )  # fmt: skip


def fitted(x, y):
    """Return the slope, downwards, and the R2 of a line."""
    if len(x) < 3:
        return float("nan"), float("nan")
    slope, start = np.polyfit(x, y, 1)
    return -float(slope), 1 - float(((y - slope * x - start) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def decay_of(n, dimension, steps=60, seed=0):
    """Return how the error of two rules and of chance falls with the channels kept."""
    points = contributions(n, dimension, seed)
    lines = []
    for fixed in (False, True):
        path = searched(points, steps, fixed)
        kept = np.array([(a > 0).sum() for _, _, _, a in path])
        errors = np.array([error for _, _, error, _ in path])
        best = {k: errors[kept == k].min() / errors[0] for k in np.unique(kept)}
        lines.append((np.array(list(best)), np.array(list(best.values()))))
    order = np.random.default_rng(seed).permutation(n)[: len(lines[0][0])]
    means = points[order].cumsum(axis=0) / np.arange(1, len(order) + 1)[:, None]
    chance = (means**2).sum(axis=1)
    lines.append((np.arange(1, len(order) + 1), chance / (points**2).sum(axis=1).min()))
    kept, errors = lines[0]
    able = errors > 1e-12
    rate, exp_r2 = fitted(kept[able].astype(float), np.log(errors[able]))
    power, power_r2 = fitted(np.log(kept[able]), np.log(errors[able]))
    rules = ("line search", "fixed steps", "chance")
    return Decay(
        dimension, dimension, rules, tuple(k for k, _ in lines), tuple(e for _, e in lines),
        rate, exp_r2, power, power_r2,
    )  # fmt: skip


def pruned(sizes=(64, 64, 32), n=64, dimension=8, steps=40, dimensions=(4, 8, 32), seed=0):
    """Return a network whose first layers are done; the one being looked at has n channels."""
    noise = np.random.default_rng(seed)
    layers = []
    for index, size in enumerate(sizes):
        middle = (len(sizes) - 1) // 2
        state = "done" if index < middle else "now" if index == middle else "waiting"
        state = "fixed" if index and index == len(sizes) - 1 else state
        weights = np.ones(size)
        if state == "done" and size > 1:
            weights = np.where(noise.random(size) < 0.4, noise.gamma(2.0, size=size), 0.0)
            weights *= size / max(weights.sum(), 1e-12)
        why = "its outputs are added" if state == "fixed" else ""
        layers.append(Channels(f"block {index + 1}", weights, state, why))
    imitation = imitated(n, dimension, steps, seed)
    decays = tuple(decay_of(n, each, steps + 20, seed) for each in dimensions)
    return Pruning("A network that is pruned", tuple(layers), (5.24e6, 3.1e6), imitation, decays)


def named(scene, word):
    """Return a network in which everything that can have a name has this one."""
    layers = tuple(replace(layer, name=word, why=word if layer.why else "") for layer in scene.layers)
    decays = tuple(replace(decay, rules=(word, f"{word} 2", f"{word} 3")) for decay in scene.decays)
    path = replace(scene.imitation, layer=word, rule=word)
    return replace(scene, title=word, layers=layers, imitation=path, decays=decays)
