"""Scenes: the closed union of frozen numpy records that a surface can draw."""

__all__ = [
    "Candidate",
    "Channels",
    "Curves",
    "Decay",
    "Images",
    "Imitation",
    "Layer",
    "Link",
    "Matrix",
    "Members",
    "Molecules",
    "Network",
    "Points",
    "Pruning",
    "Scene",
    "Series",
    "Split",
]

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8


@dataclass(frozen=True, eq=False)
class Images:
    """n pictures of one size as 8-bit RGB, each with a caption."""

    pixels: UInt8[np.ndarray, "n h w 3"]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Points:
    """Points in the plane over the contours of a loss.

    `values` are the points' losses; `heights` (rows are y) is the loss on the grid `x` by `y`;
    `optimum` is the known optimum set as a polyline or scattered points, empty where unknown.
    """

    positions: Float[np.ndarray, "n 2"]
    values: Float[np.ndarray, " n"]
    x: Float[np.ndarray, " w"]
    y: Float[np.ndarray, " h"]
    heights: Float[np.ndarray, "h w"]
    optimum: Float[np.ndarray, "m 2"]


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a chart, or the points alone where they are `dots`."""

    name: str
    x: Float[np.ndarray, " k"]
    y: Float[np.ndarray, " k"]
    dots: bool = False


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines over a shared pair of axes, either of which may be logarithmic."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_y: bool = False
    log_x: bool = False


@dataclass(frozen=True, eq=False)
class Members:
    """A population in its trade-off: each member's loss against its distance to the nearest other one.

    `captions` describe the members in a line each; `pixels` are their pictures, where they have some.
    """

    title: str
    loss_label: str
    distance_label: str
    losses: Float[np.ndarray, " n"]
    distances: Float[np.ndarray, " n"]
    captions: tuple[str, ...]
    pixels: UInt8[np.ndarray, "n h w 3"] | None = None
    log_loss: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """The neurons of one layer of a network that grows, in the order of the network.

    `ids` stay with a neuron for life; `parents` are the ids they came from (-1: from nobody); `born` is the round they
    came in, 0 for the first network. `shares` are the signed shares of their first ancestor's output that they carry.
    `low` and `high` are the smallest and largest eigenvalue of each neuron's splitting matrix, `gains` the change of
    the loss that its best split promises at step size 1 (at eps: times eps squared), `costs` what that split adds and
    `schemes` what it is called ("" for none); all 0 where the network was not scored yet.
    """

    name: str
    ids: Int[np.ndarray, " n"]
    parents: Int[np.ndarray, " n"]
    born: Int[np.ndarray, " n"]
    shares: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    gains: Float[np.ndarray, " n"]
    costs: Float[np.ndarray, " n"]
    schemes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Link:
    """How strongly the neurons of layer `target` read those of layer `source` (places in `Network.layers`)."""

    source: int
    target: int
    strengths: Float[np.ndarray, "t s"]


@dataclass(frozen=True, eq=False)
class Split:
    """One split of the last round: of which neuron, how, and the change of the loss predicted and measured alone."""

    layer: str
    neuron: int
    scheme: str
    predicted: float
    measured: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something a round could add: where, what, the change of the loss it promised, its cost, and whether it was taken.

    `kind` is split (of a neuron there is), new (a neuron), layer (a neuron of a layer that was not there) or unlock (a
    frozen neuron's copy, free to learn a new task). `layer` names the layer of the network, or the one it would follow.
    """

    layer: str
    kind: str
    gain: float
    cost: float
    chosen: bool


@dataclass(frozen=True, eq=False)
class Network:
    """A network that grows: its neurons, what the last scoring said of them, and what the last round did.

    `inputs` and `outputs` say in words what goes in and what comes out, and `reads` how strongly the last layer's
    neurons are read for each output, with their signs (no rows where nothing simple can be said). `eps` is the step
    size of the last round; `probe_eps` and `probe_changes` are step sizes tried with all of its
    splits at once and the changes of the loss measured there, beside `curvature * eps**2`, the change predicted.
    `budget` is what the round might spend, in `unit`. `approximate`: the activation or the pooling has kinks, so that
    predictions only rank. `scored`: there are eigenvalues to show. `candidates`: what competed in the last round, costs
    in `unit`. `eras` are the names of what `born` counts where it is not rounds (a stream's tasks, the first is 0).
    """

    title: str
    inputs: str
    outputs: str
    reads: Float[np.ndarray, "o n"]
    layers: tuple[Layer, ...]
    links: tuple[Link, ...]
    splits: tuple[Split, ...]
    round: int
    scored: bool
    eps: float
    curvature: float
    probe_eps: Float[np.ndarray, " k"]
    probe_changes: Float[np.ndarray, " k"]
    budget: float
    unit: str
    approximate: bool
    candidates: tuple[Candidate, ...] = ()
    eras: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Matrix:
    """A table of numbers between 0 and 100 (%), shown as a field of shades; NaN where there is none yet.

    `rows` and `columns` name its lines, `row_label` and `column_label` say what they are.
    """

    title: str
    row_label: str
    column_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Float[np.ndarray, "r c"]


@dataclass(frozen=True, eq=False)
class Molecules:
    """n conformers of one molecule, superposed by their heavy atoms, in angstrom.

    `symbols` are the atoms' elements, `charges` their formal charges; `bonds` pairs of atoms with their `orders`
    (1, 2, 3; 1.5 where aromatic). `energies` are kcal/mol above `lowest`, in the force field called `field`; `captions`
    say a line about each conformer. `groups` gives conformers that are one shape the same number, -1 where that is not
    known yet. `path` holds the conformers at k moments of the run, oldest first (none where nothing moved).
    """

    title: str
    smiles: str
    symbols: tuple[str, ...]
    charges: Int[np.ndarray, " a"]
    bonds: Int[np.ndarray, "b 2"]
    orders: Float[np.ndarray, " b"]
    positions: Float[np.ndarray, "n a 3"]
    energies: Float[np.ndarray, " n"]
    groups: Int[np.ndarray, " n"]
    captions: tuple[str, ...]
    path: Float[np.ndarray, "k n a 3"]
    field: str
    lowest: float


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of one layer (or of several tied together) of a network that is pruned.

    `weights` are what the layer's readers multiply each channel by: 1 as it was, 0 dropped. `state` is waiting, now,
    done or fixed, and `why` says in words why a fixed layer cannot change, or what ended a done one.
    """

    name: str
    weights: Float[np.ndarray, " n"]
    state: str
    why: str = ""


@dataclass(frozen=True, eq=False)
class Imitation:
    """How the channels of one layer were chosen, moment by moment: a sparse point of a hull that nears its target.

    `positions` are the channels' contributions in the plane that shows most of them (a share `shown` of their squared
    distances), with the target at 0. A moment m has the channel it touched, what it did with it (add, reweight,
    shrink or remove), how many channels were kept after it, the error left (relative to the first moment's) and the
    weights a, which are at least 0 and sum to 1. Of a long path only some moments are there; `steps` are their numbers.
    """

    layer: str
    rule: str
    positions: Float[np.ndarray, "n 2"]
    target: Float[np.ndarray, " 2"]
    shown: float
    steps: Int[np.ndarray, " m"]
    touched: Int[np.ndarray, " m"]
    kinds: tuple[str, ...]
    kept: Int[np.ndarray, " m"]
    errors: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, "m n"]


@dataclass(frozen=True, eq=False)
class Decay:
    """How the error of each rule falls with the channels kept, for one number of calibration values.

    `dimension` is the effective dimension (the rank of the contributions), `rules` name the lines; each has its `kept`
    and `errors` (relative to one channel), and the two fits of the first rule: exp(-exp_rate n) with its R2, and
    n ** -power with its R2; NaN where there are too few points.
    """

    points: int
    dimension: int
    rules: tuple[str, ...]
    kept: tuple[Int[np.ndarray, " _"], ...]
    errors: tuple[Float[np.ndarray, " _"], ...]
    exp_rate: float
    exp_r2: float
    power: float
    power_r2: float


@dataclass(frozen=True, eq=False)
class Pruning:
    """A network that is pruned by greedy imitation: its layers, the newest layer's path, and the rates of decay.

    `macs` are the multiply-accumulates before and now; `imitation` is None before the first layer was looked at, and
    `decays` go from few calibration values to many.
    """

    title: str
    layers: tuple[Channels, ...]
    macs: tuple[float, float]
    imitation: Imitation | None
    decays: tuple[Decay, ...]


Scene = Images | Points | Curves | Members | Network | Matrix | Molecules | Pruning
