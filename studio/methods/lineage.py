"""The lineage of a growing network's neurons: who came from whom, when, with what share."""

__all__ = ["Lineage", "edits_of", "first_generation", "given", "next_generation"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.nets.spaces import Spaces
from studio.nets.surgery import NEW, Change, Edit, widened


@dataclass(frozen=True, eq=False)
class Lineage:
    """The neurons of one space: `ids` for life, `parents` (-1: nobody), the round they were `born` in, their `shares`.

    A share is the product of the reader coefficients on the way from the first ancestor: the shares of a family sum to
    1 at the split, and the sum of their absolute values says how much signed copies cancel each other.
    """

    ids: Int[Tensor, " n"]
    parents: Int[Tensor, " n"]
    born: Int[Tensor, " n"]
    shares: Float[Tensor, " n"]


def first_generation(widths: Sequence[int]) -> tuple[Lineage, ...]:
    """Return the lineages of a network's spaces before it has grown; ids run through all spaces."""
    found, begin = [], 0
    for width in widths:
        none = torch.full((width,), -1)
        found.append(Lineage(begin + torch.arange(width), none, torch.zeros_like(none), torch.ones(width).double()))
        begin += width
    return tuple(found)


def given(seed: Sequence[int], inserted: Sequence[int], sources: Sequence[Tensor]) -> int:
    """Return how many ids a network has ever given: to its first neurons, those of inserted layers, and later copies.

    `seed` and `inserted` are widths, `sources` the `src` of all changes so far. An id is for life: one whose neuron was
    dropped is not given again.
    """
    later = (len(src) - len(set(src[src != NEW].tolist())) for src in sources)
    return sum(seed) + sum(inserted) + sum(later)


def next_generation(lineage: Lineage, change: Change, round: int, fresh: int) -> Lineage:
    """Return a space's lineage after a change; first copies keep their ids, others get `fresh` ones."""
    src = change.src
    old = src.clamp(min=0)
    seen: set[int] = set()
    later = torch.tensor([slot == NEW or slot in seen or seen.add(slot) is not None for slot in src.tolist()])
    count = fresh + torch.cumsum(later.long(), dim=0) - 1
    return Lineage(
        ids=torch.where(later, count, lineage.ids[old]),
        parents=torch.where(later, torch.where(src < 0, -1, lineage.ids[old]), lineage.parents[old]),
        born=torch.where(later, torch.full_like(src, round), lineage.born[old]),
        shares=torch.where(src < 0, torch.ones_like(lineage.shares[old]), lineage.shares[old] * change.coef),
    )


def edits_of(
    seed: nn.Module, spaces: Callable[[nn.Module], Spaces], rounds: Sequence[int], changed: Sequence[int],
    changes: Sequence[Change], inserted: Callable[[nn.Module, int], nn.Module] = lambda network, round: network,
) -> tuple[Edit, ...]:  # fmt: skip
    """Return the edits that grow a seed as a run did: in round `rounds[k]`, space `changed[k]` by `changes[k]`.

    `inserted` returns the network with the layers that came in a round, before its changes.
    """
    edits: tuple[Edit, ...] = ()
    for round in range(1, max(rounds, default=0) + 1):
        seed = inserted(seed, round)
        own = {space: change for at, space, change in zip(rounds, changed, changes, strict=True) if at == round}
        if own:
            seed, made = widened(seed, spaces(seed), own)
            edits += made
    return edits
