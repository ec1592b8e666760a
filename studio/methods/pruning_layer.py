"""One layer of a network being pruned: its contributions, the selection on them in frames, and how errors decay."""

__all__ = [
    "METHODS", "Layer", "begun", "calibration", "chosen", "curve_of", "decays", "looked_at", "selected", "tolerance_of",
]  # fmt: skip

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.core.problems import GrowthProblem
from studio.methods.decay import rank_of
from studio.methods.forward_selection import KINDS, RULES, Selection, Stop, centred, ranked, select
from studio.methods.global_imitation import Outputs, imitate_outputs
from studio.methods.pruning_baselines import BASELINES
from studio.methods.pruning_budget import Curve, followed
from studio.methods.pruning_cut import gates_of
from studio.methods.pruning_state import Pruned
from studio.nets.contributions import Contributions, Wanted, contributions
from studio.nets.prefix import Prefix, first_call
from studio.nets.spaces import Spaces

METHODS = (*RULES, "global", *BASELINES)
MOMENTS = 64  # steps whose weights are kept to be shown
POINTS = (1, 2, 4, 8, 16, 32)  # calibration examples of the decays, before all
DECAY = 96  # neurons up to which decays are followed
SILENT = 1e-14  # of the loudest neuron's square: a neuron below it adds nothing
RANKED = 512  # above so many neurons the rank is what the number of values allows, and weights are not all solved
FAINT = 1e-4  # of one neuron's error: how far a layer is followed to tell what it needs


@dataclass(frozen=True, eq=False)
class Layer:
    """A space in work: its contributions, the Gram matrix about its target, and the order of a baseline.

    `outputs` are there for global imitation.
    """

    space: int
    found: Contributions
    gram: Float[np.ndarray, "n n"]
    order: np.ndarray | None = None
    outputs: Outputs | None = None

    @property
    def groups(self) -> int:
        """Return how many channels a vertex has."""
        return self.found.members.shape[1]


def looked_at(
    network: nn.Module, spaces: Spaces, space: int, prefix: Prefix, positions: int, generator: torch.Generator,
    original: Wanted | None = None,
) -> tuple[Contributions, np.ndarray]:  # fmt: skip
    """Return the contributions of a space and their Gram matrix about the target, of the original where it is given.

    Prefixes are brought to the space's first writer and keep what lies before it.
    """
    place = first_call(spaces, spaces[space].writers)
    for runs, of in ((prefix, network), *([] if original is None else [(original.prefix, original.network)])):
        if place < runs.place:
            runs.forget()
        runs.advance(of, place)
    found = contributions(network, spaces, space, prefix, positions, generator, original)
    aside = None if original is None else found.cross.numpy()
    return found, centred(found.gram.numpy(), aside, found.excess)


def curve_of(found: Contributions, gram: Float[np.ndarray, "n n"], removal: bool = True) -> Curve:
    """Return how a layer's error falls with the vertices kept, followed as far as a budget needs to know it."""
    size = len(gram)
    stop = Stop(neurons=size, tolerance=FAINT, steps=4 * size)
    rule = "fully_corrective" if size <= RANKED else "line_search"
    counts, errors = select(gram, rule, stop, removal).best()
    return followed(counts, errors / max(found.energy, np.finfo(float).tiny), size, found.members.shape[1])


def calibration(problem: GrowthProblem, step: int, examples: int) -> list[Tensor]:
    """Return so many examples of training from batch number `step` on, in their batches."""
    found: list[Tensor] = []
    while examples > 0:
        found.append(problem.batch(step)[0][:examples])
        examples, step = examples - len(found[-1]), step + 1
    return found


def tolerance_of(layer: Layer, tolerance: float) -> float:
    """Return an error relative to the square of the layer's output as one relative to the best single neuron's.

    Global imitation measures outputs, and takes it relative to the first one's as it is.
    """
    if layer.outputs is not None:
        return tolerance
    first = float(np.diagonal(layer.gram).min())
    return tolerance * layer.found.energy / first if first > 0 else 1.0


def begun(now: Pruned, layer: Layer, place: int) -> Pruned:
    """Return the snapshot at the start of a layer: nothing chosen, its vertices seen in the plane."""
    size = len(layer.gram)
    positions, shown = _plane(layer.gram)
    empty, none = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    return replace(
        now, layer=place, into=0, touched=empty, gammas=none, kinds=empty, path_errors=none, kept=empty, moments=empty,
        weights=torch.zeros(0, size, dtype=torch.float64), last=none, positions=torch.from_numpy(positions),
        shown=shown,
    )  # fmt: skip


def selected(layer: Layer, rule: str, stop: Stop, removal: bool, screen: int, now: Pruned) -> tuple[Pruned, Selection]:
    """Return the snapshot and the path after the selection has gone on to where `stop` says."""
    before = _path(now, len(layer.gram))
    if layer.order is not None:
        path = ranked(layer.gram, layer.order, stop)
    elif layer.outputs is not None:
        first = np.argsort(np.diagonal(layer.gram), kind="stable")[: screen or len(layer.gram)].tolist()
        path = imitate_outputs(layer.outputs, stop, screen, removal, before, first)
    else:
        path = select(layer.gram, rule, stop, removal, before)
    old, new = (len(before), len(path)) if layer.order is None else (0, len(path))
    steps = list(range(old, new))
    rows = torch.stack([torch.from_numpy(path.weights(step)) for step in steps]) if new > old else now.weights[:0]
    moments = torch.cat([now.moments[: None if old else 0], torch.tensor(steps, dtype=torch.int64)])
    weights = torch.cat([now.weights[: None if old else 0], rows])
    if len(moments) > MOMENTS:
        chosen = torch.from_numpy(np.unique(np.linspace(0, len(moments) - 1, MOMENTS).round().astype(np.int64)))
        moments, weights = moments[chosen], weights[chosen]
    after = replace(
        now, touched=torch.tensor(path.touched), gammas=torch.tensor(path.gammas, dtype=torch.float64),
        kinds=torch.tensor([KINDS.index(kind) for kind in path.kinds]),
        path_errors=torch.tensor(path.errors, dtype=torch.float64), kept=torch.tensor(path.kept), moments=moments,
        weights=weights, last=torch.from_numpy(path.weights()), passes=now.passes + path.passes - before.passes,
    )  # fmt: skip
    return after, path


def chosen(layer: Layer, path: Selection, neurons: int) -> tuple[Tensor, float]:
    """Return the gates of a layer's channels after its selection, and the error relative to the layer's output.

    A baseline's channels keep their weights: it has no others to give them. A neuron that is silent on all examples is
    the origin of the hull: its weight makes the others' sum smaller, and it is dropped, as it adds nothing itself.
    """
    last = path.weights(path.at(neurons) if layer.outputs is None and layer.order is None else -1)
    if layer.order is not None:
        last = (last > 0) / len(last)
    error = float(last @ layer.gram @ last) if layer.order is None else _plain_error(layer, last)
    loud = np.diagonal(layer.found.gram.numpy()) > SILENT * layer.found.gram.diagonal().max().item()
    last = np.where(loud, last, 0.0) if (last[loud] > 0).any() else last
    return gates_of(layer.found.members, last), max(error, 0.0) / max(layer.found.energy, np.finfo(float).tiny)


def decays(
    gram_of: Callable[[int], tuple[Contributions, np.ndarray]], examples: int, orders: dict[str, np.ndarray],
    removal: bool,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:  # fmt: skip
    """Return how the errors of all rules fall, for a growing number of calibration examples.

    `gram_of` gives the contributions over the first so many examples; `orders` are baselines' orders by name. What
    comes back are calibration values, effective dimensions, the rules' names, and the curves for each pair.
    """
    points, dimensions, kept, errors = [], [], [], []
    names = (*RULES, *orders)
    for count in dict.fromkeys(min(count, examples) for count in (*POINTS, examples)):
        found, gram = gram_of(count)
        size = len(gram)
        points.append(found.values)
        dimensions.append(rank_of(gram) if size <= RANKED else min(found.values, size - 1))
        stop = Stop(neurons=min(DECAY, size), steps=4 * DECAY)
        paths = [select(gram, rule, stop, removal) for rule in RULES]
        paths += [ranked(gram, order, stop) for order in orders.values()]
        for path in paths:
            counts, lowest = path.best()
            kept.append(torch.from_numpy(counts.astype(np.int64)))
            errors.append(torch.from_numpy(lowest / max(path.errors[0], np.finfo(float).tiny)))
    return tuple(points), tuple(dimensions), names, tuple(kept), tuple(errors)


def _plain_error(layer: Layer, mask: np.ndarray) -> float:
    """Return the error of channels kept as they are: their weights need not sum to 1, so the target stays inside."""
    gone = mask - 1 / len(mask)
    raw = layer.found.gram.numpy()
    off = 2 * float(gone @ layer.found.cross.numpy())
    return float(gone @ raw @ gone) - off + layer.found.excess


def _path(now: Pruned, size: int) -> Selection:
    """Return the path so far as a selection to go on from; the weights of its last step are there alone."""
    count = len(now.touched)
    if not count:
        return Selection(size)
    places = np.flatnonzero(now.last.numpy())
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    return Selection(
        size, tuple(now.touched.tolist()), tuple(now.gammas.tolist()),
        tuple(KINDS[kind] for kind in now.kinds.tolist()), tuple(now.path_errors.tolist()), tuple(now.kept.tolist()),
        (nothing[0],) * (count - 1) + (places,), (nothing[1],) * (count - 1) + (now.last.numpy()[places],),
    )  # fmt: skip


def _plane(gram: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the vertices in the plane with most of their squared distances to the target, and its share of them."""
    size = len(gram)
    if size > RANKED:
        from scipy.sparse.linalg import eigsh

        values, vectors = eigsh(gram, k=2, v0=np.ones(size))
    else:
        values, vectors = np.linalg.eigh(gram)
        values, vectors = values[-2:], vectors[:, -2:]
    values = np.maximum(values, 0.0)[::-1]
    scaled = (vectors[:, ::-1] * np.sqrt(values))[:, : min(2, size)]
    flip = np.where(scaled[np.abs(scaled).argmax(axis=0), np.arange(scaled.shape[1])] < 0, -1.0, 1.0)
    flat = np.zeros((size, 2))
    flat[:, : scaled.shape[1]] = scaled * flip
    total = float(np.trace(gram))
    return flat, min(1.0, float(values.sum()) / total) if total > 0 else 1.0
