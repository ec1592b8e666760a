"""Where the neurons of a growing network stand, who came from whom, and which colour a splitting index has."""

__all__ = [
    "BOX",
    "BUCKETS",
    "PALE",
    "WEAKEST",
    "Block",
    "Layout",
    "affordable",
    "bucket",
    "families",
    "family_shares",
    "laid_out",
    "limit_of",
    "lineage",
    "pitch_of",
    "tidy",
]

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from studio.scenes import Layer, Network

# From warm (unstable) over pale to cool (stable): vermilion and blue, told apart with any colour vision.
WARM, MIDDLE, COOL = np.array([206.0, 78, 0]), np.array([240.0, 234, 222]), np.array([0.0, 98, 160])
STEPS = 5
PALE = "#9aa5b4"
# The widest layer decides how far apart all neurons stand.
PITCHES = ((9, 34.0), (13, 22.0), (64, 18.0), (150, 14.5), (330, 11.0))
CLOSEST = 8.0
# How wide the boxes at both ends are, and below which share of the strongest a line is left out.
BOX = 76.0
WEAKEST = 0.06
SLACK = 1 + 1e-9


def _mixed(step: int) -> str:
    end = WARM if step < 0 else COOL
    red, green, blue = (MIDDLE + (end - MIDDLE) * abs(step) / STEPS).round().astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"


BUCKETS = tuple(_mixed(step) for step in range(-STEPS, STEPS + 1))


@dataclass(frozen=True, eq=False)
class Block:
    """The neurons of one layer in columns: `order` are their places in the layer as they are shown, top to bottom."""

    order: Int[np.ndarray, " n"]
    x: float
    y: float
    rows: int
    pitch: float

    @property
    def width(self) -> float:
        """Return the distance between the first and the last column."""
        return max(0, math.ceil(len(self.order) / self.rows) - 1) * self.pitch

    @property
    def height(self) -> float:
        """Return the distance between the highest and the lowest neuron."""
        return max(0, min(len(self.order), self.rows) - 1) * self.pitch

    def edge(self, side: int) -> tuple[float, float, float]:
        """Return the left (-1) or the right (1) edge: how far right it is, its upper and its lower end."""
        half = 0.5 * self.pitch
        x = self.x - half if side < 0 else self.x + self.width + half
        return x, self.y - half, self.y + self.height + half

    def places(self) -> Float[np.ndarray, "n 2"]:
        """Return where each neuron stands, in the order of the layer."""
        column, row = np.divmod(np.arange(len(self.order)), self.rows)
        found = np.zeros((len(self.order), 2))
        found[self.order] = np.stack([self.x + column * self.pitch, self.y + row * self.pitch], axis=1)
        return found


@dataclass(frozen=True, eq=False)
class Layout:
    """The blocks of all layers on a sheet of a width and a height, and how large a neuron is drawn."""

    blocks: tuple[Block, ...]
    width: float
    height: float
    pitch: float
    gap: float

    @property
    def size(self) -> float:
        """Return the diameter of a neuron."""
        return min(0.62 * self.pitch, 18.0)

    @property
    def ends(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the middles of the boxes of what goes in and of what comes out, half a box from the edges."""
        return (BOX / 2, self.height / 2), (self.width - BOX / 2, self.height / 2)


def tidy(scene: Network) -> Network:
    """Return the network with 0 for every number that is none, and all costs together for a budget without end."""
    layers = tuple(
        replace(layer, **{name: _finite(getattr(layer, name)) for name in ("shares", "low", "high", "gains", "costs")})
        for layer in scene.layers
    )
    links = tuple(replace(link, strengths=_finite(link.strengths)) for link in scene.links)
    last = len(layers[-1].ids) if layers else 0
    reads = _finite(scene.reads) if scene.reads.shape[1:] == (last,) else np.zeros((0, last))
    whole = float(sum(layer.costs.sum() for layer in layers))
    budget = whole if scene.budget == math.inf else scene.budget
    eps, curvature, budget = (
        float(number) if math.isfinite(number) else 0.0 for number in (scene.eps, scene.curvature, budget)
    )
    return replace(scene, layers=layers, links=links, reads=reads, eps=eps, curvature=curvature, budget=budget)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def pitch_of(scene: Network) -> float:
    """Return how far apart the neurons stand: the closer, the wider the widest layer."""
    widest = max((len(layer.ids) for layer in scene.layers), default=1)
    return next((pitch for most, pitch in PITCHES if widest <= most), CLOSEST)


def laid_out(scene: Network, height: float, margin: float, side: float, gap: float, pitch: float) -> Layout:
    """Return the layers from left to right, each in as few columns as fit the height; `side` is left at both ends.

    A neuron's copies stand below it, so that those that were there before keep their order as the network grows.
    """
    rows = max(1, int((height - 2 * margin) / pitch) + 1)
    blocks, x = [], side
    for layer in scene.layers:
        order = lineage(layer)
        tall = max(0, min(len(order), rows) - 1) * pitch
        blocks.append(Block(order, x, (height - tall) / 2, rows, pitch))
        x += blocks[-1].width + gap
    return Layout(tuple(blocks), max(x - gap, side) + side, height, pitch, gap)


def lineage(layer: Layer) -> Int[np.ndarray, " n"]:
    """Return the places of the neurons so that each is followed by its copies, the older ones first.

    Copies whose parent is gone stand together, where the first of them is.
    """
    ids, parents = layer.ids.tolist(), layer.parents.tolist()
    here = set(ids)
    copies: dict[int, list[int]] = {}
    for place in sorted(range(len(ids)), key=lambda place: -ids[place]):
        if parents[place] not in (-1, ids[place]):
            copies.setdefault(parents[place], []).append(place)
    found: dict[int, None] = {}
    # The second time round takes those up that a circle of parents left out.
    for last in (False, True):
        for place, parent in enumerate(parents):
            orphan = parent not in here or parent == ids[place]
            if place not in found and (orphan or last):
                _walk(copies.get(parent, [place]) if parent not in here else [place], ids, copies, found)
    return np.array(list(found), dtype=np.int64)


def _walk(start: list[int], ids: list[int], copies: dict[int, list[int]], found: dict[int, None]) -> None:
    """Add the places on `start`, the last first, each followed by those below it."""
    waiting = list(start)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found[place] = None
            waiting += copies.get(ids[place], [])


def families(layer: Layer) -> Int[np.ndarray, " n"]:
    """Return the place of each neuron's first ancestor that is still in the layer."""
    places = {int(neuron): place for place, neuron in enumerate(layer.ids)}
    first = np.arange(len(layer.ids))
    for place in range(len(layer.ids)):
        seen = {place}
        at = places.get(int(layer.parents[place]))
        while at is not None and at not in seen:
            seen.add(at)
            first[place] = at
            at = places.get(int(layer.parents[at]))
    return first


def family_shares(layer: Layer) -> Float[np.ndarray, " n"]:
    """Return the shares of each neuron's family, added without their signs: large where opposite copies blow up."""
    first, totals = families(layer), np.zeros(len(layer.ids))
    np.add.at(totals, first, np.abs(layer.shares))
    return totals[first]


def limit_of(scene: Network) -> float:
    """Return the largest splitting index of the network, without its sign; 0 where there is none."""
    return float(max((np.abs(layer.low).max(initial=0.0) for layer in scene.layers), default=0.0))


def bucket(low: Float[np.ndarray, " n"], limit: float) -> Int[np.ndarray, " n"]:
    """Return the place of each index in `BUCKETS`, on a root scale; any that is not zero is off the middle."""
    share = low / limit if limit else np.zeros(len(low))
    away = np.ceil(np.sqrt(np.abs(share).clip(0, 1)) * STEPS - 1e-9)
    return (np.sign(share) * away).astype(np.int64) + STEPS


def affordable(gains: Sequence[float], costs: Sequence[float], budget: float) -> list[int]:
    """Return which splits a budget pays: the largest fall of the loss per cost first, those that do not fit left out.

    That order solves the knapsack exactly where one split may be taken in part; as it may not, the largest single fall
    and what fits beside it are preferred where they promise more.
    """
    fitting = [index for index, gain in enumerate(gains) if gain < 0 and costs[index] <= budget * SLACK]
    rates = {index: gains[index] / costs[index] if costs[index] > 0 else -math.inf for index in fitting}
    order = sorted(fitting, key=lambda index: (rates[index], gains[index]))
    largest = sorted(order, key=lambda index: gains[index])[:1]
    ways = [_filled(way, costs, budget) for way in (order, largest + order)]
    return min(ways, key=lambda way: sum(gains[index] for index in way))


def _filled(order: Sequence[int], costs: Sequence[float], budget: float) -> list[int]:
    chosen: list[int] = []
    spent = 0.0
    for index in order:
        if index not in chosen[:1] and spent + costs[index] <= budget * SLACK:
            spent += costs[index]
            chosen.append(index)
    return chosen
