"""Scouting: the random latents of a generator whose pictures already look most like what is wanted.

The first stage of FuseDream (Liu, Gong, Wu, Zhang, Su and Liu, 2021, arXiv 2112.01573): of M random latents the k
with the highest CLIP score become the basis of a blend.
"""

__all__ = ["ScoutProblem", "Scouts", "scouted", "top_k"]

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Scouts = tuple[Tensor, Tensor, Tensor]
OWN = 4


@runtime_checkable
class ScoutProblem(Protocol):
    """What scouting needs to know: directions wanted, and random latents with the features of their pictures."""

    @property
    def target(self) -> Float[Tensor, "n d"]:
        """The directions the pictures' features should take, one a picture."""
        ...

    def candidates(self, samples: int, fresh: bool, generator: torch.Generator) -> Iterator[Scouts]:
        """Yield batches of latents z (m, dz), y (m, dy) with the features (m, d) of their pictures."""
        ...

    def random_latents(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return `count` random latents z and class embeddings y."""
        ...


def scouted(
    problem: ScoutProblem, k: int, source: str, samples: int, generator: torch.Generator, apart: bool = False
) -> Iterator[tuple[Scouts, int]]:
    """Yield, after every batch of candidates, the best k so far as (n, k, d) tensors, and how many were looked at.

    `source`: bank | fresh | none (random latents, unscored). Members that want the same start at different scouts and
    share the others; `apart` gives each up to four scouts of its own, which look alike and unlike the others' own.
    """
    turns, seen = _turns(problem.target) * (source != "none"), 0
    apart = apart and source != "none"
    most = 1 + int(turns.max())
    wide = most * max(min(k, OWN), -(-k // most)) if apart else max(k, most)
    kept: Scouts | None = None
    for batch in _candidates(problem, source, samples, len(turns) * wide, generator):
        seen += len(batch[0])
        kept = _keep(problem, source == "none", batch, kept, wide)
        if kept[0].shape[1] == wide:
            yield (_dealt if apart else _turned)(kept, turns, k), seen


def top_k(features: Float[Tensor, "m d"], target: Float[Tensor, "n d"], k: int) -> Int[Tensor, "n k"]:
    """Return for each target the k rows with the highest product, best first, the earlier of two equals."""
    products = target.float() @ features.float().T
    return products.sort(dim=1, descending=True, stable=True).indices[:, :k]


def _turns(target: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """Return how many members before each one want the same: the i-th picture of a prompt starts at scout i."""
    return (target[:, None] == target[None]).all(dim=2).tril(-1).sum(dim=1)


def _turned(kept: Scouts, turns: Int[Tensor, " n"], k: int) -> Scouts:
    """Return k bases a member, its own first, then the best of the others."""
    order = torch.arange(kept[0].shape[1], device=turns.device).expand(len(turns), -1)
    own_first = torch.where(order == turns[:, None], -1, order).sort(dim=1, stable=True).indices[:, :k, None]
    return tuple(part.gather(1, own_first.expand(-1, -1, part.shape[2])) for part in kept)  # type: ignore[return-value]


def _dealt(kept: Scouts, turns: Int[Tensor, " n"], k: int) -> Scouts:
    """Return k bases a member: some of its own, in groups that look alike, and then the best that all share.

    The groups' seeds are the best scout and then always the one farthest from those chosen; the assignment of the
    scouts to the seeds is the cheapest that gives each as many.
    """
    rows = []
    for member, turn in enumerate(turns.tolist()):
        far = torch.cdist(kept[2][member].double(), kept[2][member].double())
        own = len(far) // (1 + int(turns.max()))
        seeds = [0]
        while len(seeds) < len(far) // own:
            seeds.append(int(far[seeds].amin(dim=0).argmax()))
        _, slots = linear_sum_assignment(far[:, seeds].repeat_interleave(own, dim=1).numpy(force=True))
        mine = [index for index, slot in enumerate(slots.tolist()) if slot // own == turn]
        rows.append(torch.tensor((mine + [index for index in range(len(far)) if index not in mine])[:k]))
    chosen = torch.stack(rows).to(kept[0].device)[:, :, None]
    return tuple(part.gather(1, chosen.expand(-1, -1, part.shape[2])) for part in kept)  # type: ignore[return-value]


def _candidates(
    problem: ScoutProblem, source: str, samples: int, count: int, generator: torch.Generator
) -> Iterator[Scouts]:
    if source != "none":
        return problem.candidates(samples, source == "fresh", generator)
    z, y = problem.random_latents(count, generator)
    return iter([(z, y, torch.zeros(count, problem.target.shape[1], device=z.device))])


def _keep(problem: ScoutProblem, random: bool, batch: Scouts, kept: Scouts | None, k: int) -> Scouts:
    """Return the best k of a batch and of those kept before, as (n, k, d) tensors with their features."""
    target = problem.target
    if random:
        return tuple(part.view(len(target), k, -1) for part in batch)  # type: ignore[return-value]
    rows = top_k(batch[2], target, k)
    found = tuple(part[rows].float() for part in batch)
    if kept is None:
        return found  # type: ignore[return-value]
    both = tuple(torch.cat((old, new), dim=1) for old, new in zip(kept, found, strict=True))
    products = torch.einsum("nkd,nd->nk", both[2], target.float())
    order = products.sort(dim=1, descending=True, stable=True).indices[:, :k, None]
    return tuple(part.gather(1, order.expand(-1, -1, part.shape[2])) for part in both)  # type: ignore[return-value]
