"""Charts into a table: every point, member, neuron, channel, cell of a matrix and conformer as a line of CSV."""

__all__ = ["csv_text"]

import csv
import io
import math
from collections.abc import Iterator, Sequence

from studio.render.molecules_text import group_word, ranked
from studio.scenes import Curves, Matrix, Members, Molecules, Network, Pruning, Scene

HEADER = ("curve", "series", "x", "y")
FORMULA = ("=", "+", "-", "@", "\t")


def csv_text(scenes: Sequence[Scene]) -> str:
    """Return the curves, the members, the neurons, the matrices and the conformers among the scenes as CSV.

    A member's loss is x and its distance y; a neuron's smallest eigenvalue is x and its largest y; a matrix has a line
    a cell that is not empty, its row as the series, the name of its column as x and its value as y; a conformer's
    energy above the lowest is x and the number of its shape y, from the lowest up. A network that is pruned has a line
    a kept channel, its number as x and its weight as y, and a line a moment and a point of each rule, the channels kept
    as x and the error as y.
    A title that a spreadsheet would take for a formula begins with an apostrophe.
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(HEADER)
    for scene in scenes:
        if isinstance(scene, Curves):
            for series in scene.series:
                pairs = zip(series.x, series.y, strict=True)
                table.writerows((_words(scene.title), _words(series.name), _number(x), _number(y)) for x, y in pairs)
        if isinstance(scene, Members):
            pairs = zip(scene.losses, scene.distances, strict=True)
            table.writerows(
                (_words(scene.title), f"member {index}", _number(x), _number(y))
                for index, (x, y) in enumerate(pairs, start=1)
            )
        if isinstance(scene, Network):
            for layer in scene.layers:
                neurons = zip(layer.ids, layer.low, layer.high, strict=True)
                title = _words(f"{scene.title}: {layer.name}")
                table.writerows((title, f"neuron {index}", _number(low), _number(high)) for index, low, high in neurons)
        if isinstance(scene, Matrix):
            table.writerows(_cells(scene))
        if isinstance(scene, Molecules):
            order = ranked(scene)
            pairs = zip(scene.energies[order].tolist(), scene.groups[order].tolist(), strict=True)
            table.writerows(
                (_words(scene.title), f"rank {rank}", _number(energy), group_word(group))
                for rank, (energy, group) in enumerate(pairs, start=1)
            )
        if isinstance(scene, Pruning):
            table.writerows(_kept(scene))
            table.writerows(_paths(scene))
    return buffer.getvalue()


def _cells(scene: Matrix) -> Iterator[tuple[str, ...]]:
    """Yield a line for every cell with a number, row by row."""
    for row, values in zip(scene.rows, scene.values, strict=True):
        for column, value in zip(scene.columns, values, strict=True):
            if math.isfinite(value):
                yield _words(scene.title), _words(row), _words(column), _number(value)


def _kept(scene: Pruning) -> Iterator[tuple[str, ...]]:
    """Yield a line for every channel that is kept, layer by layer."""
    for layer in scene.layers:
        title = _words(f"{scene.title}: {layer.name}")
        for channel in (layer.weights > 0).nonzero()[0].tolist():
            yield title, f"channel {channel}", _number(channel), _number(layer.weights[channel])


def _paths(scene: Pruning) -> Iterator[tuple[str, ...]]:
    """Yield a line for every moment of the newest layer's path, and for every point of the rates of decay."""
    path = scene.imitation
    if path is not None:
        title = _words(f"{scene.title}: path of {path.layer}")
        columns = (path.steps.tolist(), path.kinds, path.touched.tolist(), path.kept.tolist(), path.errors.tolist())
        for step, kind, channel, kept, error in zip(*columns, strict=True):
            yield title, _words(f"step {step}: {kind} {channel}"), _number(kept), _number(error)
    for decay in scene.decays:
        title = _words(f"{scene.title}: {decay.points} calibration values")
        for rule, kept, errors in zip(decay.rules, decay.kept, decay.errors, strict=True):
            for count, error in zip(kept.tolist(), errors.tolist(), strict=True):
                yield title, _words(rule), _number(count), _number(error)


def _words(text: str) -> str:
    text = text.replace("\r", " ")  # which the csv module leaves bare, and readers take for the end of a line
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def _number(value: float) -> str:
    return f"{value:.10g}"
