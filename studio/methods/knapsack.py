"""Which neurons to grow under a budget: the knapsack problems behind every way of growing, small and large.

Wang, Li, Wu, Chandra and Liu, "Energy-Aware Neural Architecture Optimization with Fast Splitting Steepest Descent",
2019, arXiv 1910.03103, chooses splits by

    min_beta  sum_i beta_i gain_i     subject to   sum_i beta_i cost_i <= budget,   beta_i in {0, 1}

and relaxes beta_i to [0, 1]. A gain is a predicted change of the loss: negative is good, zero or positive is never
chosen. The relaxation needs no solver: Dantzig ("Discrete-Variable Extremum Problems", Operations Research 5, 1957)
takes the items by gain per cost until one does not fit, and a fraction of that one.

Where a neuron may become two, three or four copies (S3D, arXiv 2003.10392), at most one option an item is chosen: the
multiple-choice knapsack. Its relaxation (Sinha and Zoltners, "The Multiple-Choice Knapsack Problem", Operations
Research 27, 1979; chapter 11 of Kellerer, Pferschy and Pisinger, "Knapsack Problems", 2004) keeps the corners of the
lower convex hull of each item's (cost, gain) points, and takes the steps between corners by gain per cost: each item's
steps become flatter along its hull, so they come in the right order by themselves.

    relaxed                 exact for the relaxation, O(n log n)
    chosen                  greedy, at least half of the best possible decrease, O(n log n)
    exact                   dynamic programme, O(n budget), for small whole-number costs
    multiple_choice         greedy over hull steps, at least half of the best, O(n m^2 + n m log(n m))
    multiple_choice_bound   the relaxation's value: no selection goes below it

What we changed: the authors hand the relaxation to a general solver and keep what comes out near 1; here it is sorted,
the item cut by the budget is dropped, what still fits is filled in, and the better of this and the one best item
(filled likewise) is kept. The half is Dantzig's argument: greedy and the first item left out are together no worse
than the relaxation. Caps (how many neurons a layer may get) are honoured. In `chosen` they keep the half where all
items of a group cost the same, as neurons of one layer do; otherwise nothing is promised with caps.

Ties go to the larger decrease, then to the lower index. Sums are compared with the budget up to a relative 1e-12.
"""

__all__ = ["chosen", "exact", "multiple_choice", "multiple_choice_bound", "relaxed"]

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from numpy.typing import NDArray
from torch import Tensor

SLACK = 1e-12
CELLS = 100_000_000


def relaxed(gains: Float[Tensor, " n"], costs: Real[Tensor, " n"], budget: float) -> Float[Tensor, " n"]:
    """Return the shares beta in [0, 1] that solve the relaxation, at most one of them between 0 and 1.

    Raises ValueError for gains or costs that are not finite, negative costs and a negative budget.
    """
    value, price = _read(gains, costs, budget)
    useful = np.flatnonzero(value < 0)
    order = useful[_by_efficiency(value[useful], price[useful])]
    beta = np.zeros(len(value))
    beta[order] = _shares(price[order], budget)
    return torch.from_numpy(beta).to(gains)


def chosen(
    gains: Float[Tensor, " n"],
    costs: Real[Tensor, " n"],
    budget: float,
    groups: Int[Tensor, " n"] | None = None,
    caps: Int[Tensor, " g"] | None = None,
) -> Bool[Tensor, " n"]:
    """Return which items to take: greedy by gain per cost, or the best single item and greedy after it.

    `groups` numbers each item's group from 0 and `caps` says how many of each group may be taken; give both or none.
    Free items (cost 0) come first. Raises ValueError as `relaxed` does, and for groups without a cap.
    """
    value, price = _read(gains, costs, budget)
    group, left = _grouped(len(value), groups, caps)
    room = budget * (1 + SLACK)
    useful = np.flatnonzero((value < 0) & (price <= room) & (left[group] > 0))
    order = useful[_by_efficiency(value[useful], price[useful])]
    taken = _greedy(order, price, room, group, left)
    if len(order):
        single = order[np.argmin(value[order])]
        other = _greedy(np.concatenate([[single], order[order != single]]), price, room, group, left)
        taken = other if math.fsum(value[other]) < math.fsum(value[taken]) else taken
    mask = np.zeros(len(value), dtype=bool)
    mask[taken] = True
    return torch.from_numpy(mask).to(gains.device)


def exact(gains: Float[Tensor, " n"], costs: Real[Tensor, " n"], budget: float) -> Bool[Tensor, " n"]:
    """Return the best selection of all, by Bellman's dynamic programme over whole-number costs.

    Costs and budget are first divided by the costs' common divisor; n times what remains of the budget may be a hundred
    million at most. Raises ValueError beyond that, for costs that are not whole numbers, and as `relaxed` does.
    """
    value, price = _read(gains, costs, budget)
    if costs.is_floating_point() or not float(budget).is_integer():
        raise ValueError("costs and budget must be whole numbers for exact: round them, or use chosen")
    useful = np.flatnonzero((value < 0) & (price <= budget))
    whole = price[useful].astype(np.int64)
    unit = max(int(np.gcd.reduce(whole)), 1) if len(whole) else 1
    whole, room = whole // unit, min(int(budget), int(whole.sum())) // unit
    if len(useful) * (room + 1) > CELLS:
        raise ValueError(f"budget is too large for exact ({len(useful)} items by {room}): use chosen, or coarser costs")
    taken = useful[_programme(value[useful], whole.tolist(), room)]
    mask = np.zeros(len(value), dtype=bool)
    mask[taken] = True
    return torch.from_numpy(mask).to(gains.device)


def multiple_choice(
    gains: Float[Tensor, "n m"],
    costs: Real[Tensor, "n m"],
    budget: float,
    groups: Int[Tensor, " n"] | None = None,
    caps: Int[Tensor, " g"] | None = None,
    extra: Int[Tensor, " m"] | None = None,
) -> Int[Tensor, " n"]:
    """Return the option to take for each item, -1 for none: greedy over the steps of the items' convex hulls.

    With `groups` and `caps` (give both or none) option k uses up `extra[k]` of its group's cap; left out, it is k + 1:
    two copies of a neuron are one more, three are two more. An option that is not available has gain 0.
    Raises ValueError as `chosen` does, and for a negative `extra`.
    """
    value, price = _read(gains, costs, budget)
    group, left = _grouped(len(value), groups, caps)
    uses = np.zeros(value.shape[1], dtype=np.int64)
    if caps is not None:
        uses = np.arange(1, len(uses) + 1) if extra is None else extra.cpu().numpy()
        if (uses < 0).any():
            raise ValueError("extra must not be negative: it counts the neurons that an option adds")
    room = budget * (1 + SLACK)
    usable = (value < 0) & (price <= room) & (uses <= left[group][:, None])
    hull = _hull_steps(value, price, usable)
    best = _filled(_Selection(value, price, room, group, left, uses), hull, usable)
    if usable.any():
        single = _Selection(value, price, room, group, left, uses)
        single.move(*divmod(int(np.argmin(np.where(usable, value, np.inf))), value.shape[1]))
        single = _filled(single, hull, usable)
        best = single if single.total() < best.total() else best
    return torch.tensor(best.option, dtype=torch.int64, device=gains.device)


def multiple_choice_bound(gains: Float[Tensor, "n m"], costs: Real[Tensor, "n m"], budget: float) -> float:
    """Return the value of the relaxation with at most one option an item: no selection, with caps or without, is lower.

    Options that alone cost more than the budget are left out first, as no selection has them; that makes the bound
    tighter. Raises ValueError as `relaxed` does.
    """
    value, price = _read(gains, costs, budget)
    hull = _hull_steps(value, price, (value < 0) & (price <= budget * (1 + SLACK)))
    return float(_shares(hull.rise, budget) @ hull.fall)


class _Steps:
    """The steps between the hull corners of all items, the steepest first."""

    def __init__(self, corner: NDArray, fall: NDArray, rise: NDArray, slope: NDArray):
        """Sort steps given as (n, m) arrays: the corner reached (-1 where there is none), change of gain and cost."""
        slope = np.maximum.accumulate(slope, axis=1)
        order = np.argsort(slope.ravel(), kind="stable")[: int((corner >= 0).sum())]
        self.item, self.corner = order // max(corner.shape[1], 1), corner.ravel()[order]
        self.fall, self.rise = fall.ravel()[order], rise.ravel()[order]


class _Selection:
    """One option or none for each item, the room that is left in the budget, and what is left of the caps."""

    def __init__(self, value: NDArray, price: NDArray, room: float, group: NDArray, left: NDArray, uses: NDArray):
        """Start with no option taken; a last column stands for no option, found at index -1."""
        nothing = np.zeros((len(value), 1))
        self.values, self.prices = np.hstack([value, nothing]), np.hstack([price, nothing])
        self.value, self.price, self.uses = self.values.tolist(), self.prices.tolist(), [*uses.tolist(), 0]
        self.group, self.left, self.room = group.tolist(), left.tolist(), room
        self.option = [-1] * len(value)

    def move(self, item: int, option: int) -> None:
        """Give an item this option instead of its present one, if that lowers the total and fits."""
        old, value, price = self.option[item], self.value[item], self.price[item]
        rise, more = price[option] - price[old], self.uses[option] - self.uses[old]
        group = self.group[item]
        if value[option] < value[old] and rise <= self.room and more <= self.left[group]:
            self.option[item] = option
            self.room -= rise
            self.left[group] -= more

    def total(self) -> float:
        """Return the sum of the gains taken."""
        return math.fsum(value[option] for value, option in zip(self.value, self.option, strict=True))


def _filled(selection: _Selection, hull: _Steps, usable: NDArray) -> _Selection:
    """Return the selection after all hull steps that fit, and after all other options that then fit and help."""
    for item, option in zip(hull.item.tolist(), hull.corner.tolist(), strict=True):
        selection.move(item, option)
    items, options = np.nonzero(usable)
    now = np.array(selection.option, dtype=np.int64)[items]
    fall = selection.values[items, options] - selection.values[items, now]
    rise = selection.prices[items, options] - selection.prices[items, now]
    helps = np.flatnonzero(fall < 0)
    for k in helps[_by_efficiency(fall[helps], np.maximum(rise[helps], 0))].tolist():
        selection.move(int(items[k]), int(options[k]))
    return selection


def _hull_steps(value: NDArray, price: NDArray, usable: NDArray) -> _Steps:
    """Return the steps along every item's lower convex hull, found by walking all hulls at once from (0, 0).

    From where it is, each item goes to the usable option with the most decrease per cost, the farthest one of equals.
    """
    shape = value.shape
    corner, slopes = np.full(shape, -1), np.full(shape, np.inf)
    falls, rises = np.zeros(shape), np.zeros(shape)
    at_value, at_price = np.zeros(shape[0]), np.zeros(shape[0])
    rows = np.arange(shape[0])
    for step in range(shape[1]):
        fall, rise = value - at_value[:, None], price - at_price[:, None]
        slope = np.where(usable & (fall < 0) & (rise >= 0), _ratio(fall, rise), np.inf)
        steepest = slope.min(axis=1)
        to = np.where(slope == steepest[:, None], value, np.inf).argmin(axis=1)
        goes = steepest < np.inf
        corner[goes, step], slopes[goes, step] = to[goes], steepest[goes]
        falls[goes, step], rises[goes, step] = fall[rows, to][goes], rise[rows, to][goes]
        at_value, at_price = np.where(goes, value[rows, to], at_value), np.where(goes, price[rows, to], at_price)
    return _Steps(corner, falls, rises, slopes)


def _greedy(order: NDArray, price: NDArray, room: float, group: NDArray, left: NDArray) -> list[int]:
    """Return the items taken in this order, each where it still fits the room and its group's cap."""
    taken, free = [], left.tolist()
    for item, cost, kin in zip(order.tolist(), price[order].tolist(), group[order].tolist(), strict=True):
        if cost <= room and free[kin] > 0:
            taken.append(item)
            room -= cost
            free[kin] -= 1
    return taken


def _programme(value: NDArray, price: list[int], room: int) -> list[int]:
    """Return the items of the best selection: lowest[b] is the lowest sum of gains at cost b at most."""
    lowest = np.zeros(room + 1)
    takes = np.zeros((len(price), room + 1), dtype=bool)
    for item, cost in enumerate(price):
        if cost <= room:
            candidate = lowest[: room + 1 - cost] + value[item]
            takes[item, cost:] = candidate < lowest[cost:]
            lowest[cost:] = np.minimum(candidate, lowest[cost:])
    taken = []
    for item in reversed(range(len(price))):
        if takes[item, room]:
            taken.append(item)
            room -= price[item]
    return taken


def _by_efficiency(value: NDArray, price: NDArray) -> NDArray:
    """Return the order of negative gains by gain per cost, then by gain, then by index."""
    return np.lexsort((value, _ratio(value, price)))


def _ratio(value: NDArray, price: NDArray) -> NDArray:
    """Return gain per cost, minus infinity for what is free; the caller looks at negative gains only."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return value / price


def _shares(price: NDArray, budget: float) -> NDArray:
    """Return how much of each item a budget buys when the items are bought one after the other."""
    spent = np.cumsum(price)
    before = np.concatenate([[0.0], spent[:-1]])[: len(price)]
    room = budget - before
    share = np.zeros(len(price))
    part = (room > SLACK * budget) & (room < price)
    share[part] = room[part] / price[part]
    share[spent <= budget * (1 + SLACK)] = 1
    return share


def _read(gains: Tensor, costs: Tensor, budget: float) -> tuple[NDArray, NDArray]:
    """Return gains and costs as arrays of double precision, after looking at them and at the budget."""
    if gains.shape != costs.shape:
        raise ValueError(f"costs must have the shape of gains, got {tuple(costs.shape)} and {tuple(gains.shape)}")
    value, price = gains.detach().cpu().double().numpy(), costs.detach().cpu().double().numpy()
    if not np.isfinite(value).all():
        raise ValueError("gains must be finite: look for NaN in the predicted gains, and give 0 to what is unavailable")
    if not (np.isfinite(price).all() and (price >= 0).all()):
        raise ValueError(
            "costs must be finite and not negative: count the cost of each item by a dry run of its growth"
        )
    if math.isnan(budget) or budget < 0:
        raise ValueError(f"budget must be 0 or more, got {budget}: 0 buys only what is free")
    return value, price


def _grouped(n: int, groups: Tensor | None, caps: Tensor | None) -> tuple[NDArray, NDArray]:
    """Return each item's group and each group's cap, one group without a limit where none are given."""
    if (groups is None) != (caps is None):
        raise ValueError("groups and caps must be given together: a group without a cap limits nothing")
    if groups is None or caps is None:
        return np.zeros(n, dtype=np.int64), np.full(1, np.iinfo(np.int64).max)
    group, left = groups.cpu().numpy(), caps.cpu().numpy().astype(np.int64)
    if group.shape != (n,):
        raise ValueError(f"groups must have one entry for each of the {n} items, got shape {group.shape}")
    if n and not (group.min() >= 0 and group.max() < len(left)):
        raise ValueError(f"groups must lie between 0 and {len(left) - 1}, as caps has {len(left)} entries")
    if (left < 0).any():
        raise ValueError("caps must not be negative: 0 closes a group")
    return group, left
