"""Conformers by harmless diversity: geometries of one molecule spread over its torsions, then each finds its minimum.

Gong, Wu and Liu, "How to Fill the Optimum Set? Population Gradient Descent with Harmless Diversity", ICML 2022,
arXiv 2202.08376, with the energy of a force field as f and the torsion angles as features (see
`studio.methods.harmless` for the update, and for what of it was derived here).

    embed    a few geometries (distance geometry), and minimise each
    spread   turn their bonds: predict a descent of f, correct along -grad Phi under f(x_i) <= T_t, the falling ceiling
             T_t = (lowest f now) + W_t,  W_t from `width` to 0
    settle   minimise every member over all its coordinates

What we changed: the paper spreads coordinates; here the correction turns bonds and keeps lengths and angles, as a
torsion is moved by tenths of a radian where an atom could be moved by hundredths of an angstrom at the same cost. A
member that has its minimum is in a well, and a first-order constraint cannot leave it: only the ceiling crosses
barriers, so the other variants (`max`, `sum`, `point`) and the weighted sum (`linear`) are here to compare with.
Embedding is what costs most: `few` embeds a share of the members, keeps their minima and spreads the others from them;
the share is a quarter, or that of the bonds that only embedding turns, those of large rings, where it is greater.
"""

__all__ = ["STARTS", "Search", "Shapes", "conformer_search"]

import math
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from studio.core.devices import one_thread
from studio.core.molecules import MolecularProblem, Skeleton
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.core.snapshots import Snapshot
from studio.methods.harmless import Harmless, Spread, harmless
from studio.methods.minimise import Minimiser, begun, descend

STARTS = ("few", "all", "one")
FEW = 0.25
AT_A_TIME = 8
# Evaluations between two snapshots, a whole number of the minimiser's refreshes.
ROUNDS = 30
KICK = 0.05
SHAKE = 0.1
RATE = 3e-3
PATH_BYTES = 2 * 2**20
PATH_MOST = 48
# Members times atoms: a snapshot of more would not be kept.
MOST_PLACES = 90_000


@dataclass(frozen=True)
class Search:
    """Settings: members, where they start (`STARTS`), the method, its steps and ceiling, and the last minimisation.

    `method`: ceiling | max | sum | point | linear, or plain (no spreading). `start`: few (a share is embedded, the
    others spread from their minima), all (each is embedded, then spread), one (all from one geometry, its atoms shaken
    by 0.1 angstrom). `width` and `weight` in kcal/mol. `alike`: distance in angstrom under which two are one shape.
    """

    members: int = 24
    start: str = "few"
    method: str = "ceiling"
    steps: int = 30
    width: float = 40.0
    energy: str = "riesz0"
    kappa: float = 0.5
    weight: float = 100.0
    rounds: int = 1500
    tolerance: float = 1e-2
    alike: float = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Shapes(Snapshot):
    """The members after a step: positions in angstrom, energies in kcal/mol, which have come to rest.

    `skeleton` is the molecule. The first `seeds` members are minima of embedded geometries. `spread` is the state of
    the spreading, of the members after them; `base` are the geometries it turns. `rounds` counts what the phase has
    used up: geometries asked for, or evaluations of a member. `distances` (heavy-atom RMSD in angstrom) is filled in at
    the end. `path` are the members at some moments since all were there, one in `stride`. `lowest`, `mean` and `gaps`
    (to the nearest other member, in torsion features) are curves.
    """

    skeleton: Skeleton
    positions: Float[Tensor, "n a 3"]
    energies: Float[Tensor, " n"]
    at_rest: Float[Tensor, " n"]
    seeds: int
    rounds: int
    base: Float[Tensor, "m a 3"]
    spread: Spread | None
    distances: Float[Tensor, "k k"]
    path: Float[Tensor, "p q a 3"]
    stride: int
    lowest: Float[Tensor, " t"]
    mean: Float[Tensor, " t"]
    gaps: Float[Tensor, " g"]


def conformer_search(problem: MolecularProblem, config: Search, seed: int, start: Shapes | None = None) -> Run[Shapes]:
    """Yield the first geometries and then every step; `start` is a snapshot to go on from.

    Raises `ValueError` where no geometry can be embedded at all, and for more atoms in all than a snapshot holds.
    """
    with one_thread():
        now = start if start is not None else _first(problem, config, seed)
    yield now
    while now.phase != "done":
        with one_thread():
            now = _PHASES[now.phase](problem, config, seed, now)
        yield now


def _first(problem: MolecularProblem, config: Search, seed: int) -> Shapes:
    wanted, atoms = _embeddings(problem, config), len(problem.skeleton.numbers)
    if config.members * atoms > MOST_PLACES:
        most = MOST_PLACES // atoms
        raise ValueError(f"{config.members} conformers of {atoms} atoms are too many to keep: choose at most {most}")
    found = problem.embedded(0, min(AT_A_TIME, wanted))
    energies, empty = problem.energies(found), found.new_zeros(0)
    blank = Shapes(
        step=0, total=_total(problem, config), phase="embedding", skeleton=problem.skeleton, positions=found,
        energies=energies, at_rest=torch.zeros_like(energies), seeds=0, rounds=0, base=found[:0], spread=None,
        distances=found.new_zeros(0, 0), path=found[None, :0][:0], stride=1, lowest=empty, mean=empty, gaps=empty,
    )  # fmt: skip
    return _embedded(problem, config, seed, blank, found, min(AT_A_TIME, wanted))


def _embed(problem: MolecularProblem, config: Search, seed: int, now: Shapes) -> Shapes:
    tried = now.rounds
    count = min(AT_A_TIME, _embeddings(problem, config) - tried)
    found = torch.cat([now.positions, problem.embedded(tried, count)])
    return _embedded(problem, config, seed, now, found, tried + count)


def _embedded(problem: MolecularProblem, config: Search, seed: int, now: Shapes, found: Tensor, tried: int) -> Shapes:
    """Return the members once `tried` geometries were asked for; where all were, shaken copies and the next phase."""
    done = tried >= _embeddings(problem, config)
    if done and config.start == "one":
        generator = generator_from(seed, "shake")
        copies = found[:1].expand(config.members, -1, -1)
        noise = torch.randn(copies.shape, generator=generator, dtype=torch.float64)
        found = copies + SHAKE * noise.to(found)
    return _drawn(problem, now, found, phase="relaxing" if done else "embedding", rounds=0 if done else tried)


def _relax(problem: MolecularProblem, config: Search, seed: int, now: Shapes) -> Shapes:
    return _minimised(problem, config, now, "spreading" if _spreads(problem, config, len(now.positions)) else "done")


def _spread(problem: MolecularProblem, config: Search, seed: int, now: Shapes) -> Shapes:
    """Return the members after one harmless step over the turns of their bonds."""
    seeds, base, spread = (now.seeds, now.base, now.spread) if now.spread else _spreading(problem, config, seed, now)
    with closing(harmless(problem.turns(base), spread.points, _harmless(config), spread)) as run:
        next(run)
        step = next(run)
    found = torch.cat([now.positions[:seeds], problem.turned(base, step.points)])
    phase = "settling" if step.step >= config.steps else "spreading"
    moved = _drawn(problem, now, found, phase=phase, rounds=0)
    return replace(moved, seeds=seeds, base=base, spread=step, gaps=step.gaps)


def _settle(problem: MolecularProblem, config: Search, seed: int, now: Shapes) -> Shapes:
    return _minimised(problem, config, now, "done")


_PHASES = {"embedding": _embed, "relaxing": _relax, "spreading": _spread, "settling": _settle}


def _spreading(problem: MolecularProblem, config: Search, seed: int, now: Shapes) -> tuple[int, Tensor, Spread]:
    """Return how spreading begins: how many minima are kept, which geometries turn, and a first small turn of each."""
    seeds = len(now.positions) if config.start == "few" else 0
    base = now.positions
    if seeds:
        base = now.positions[torch.arange(config.members - seeds, device=base.device) % seeds]
    generator = generator_from(seed, "kick")
    kick = KICK * torch.randn(len(base), problem.turning, generator=generator, dtype=torch.float64)
    with closing(harmless(problem.turns(base), kick.to(base), _harmless(config))) as run:
        return seeds, base, next(run)


def _minimised(problem: MolecularProblem, config: Search, now: Shapes, after: str) -> Shapes:
    """Return the members after another part of their minimisation; at rest, or at its end, in the phase after it."""
    rounds = min(ROUNDS, config.rounds - now.rounds)
    positions, energies, at_rest = _descended(problem, config, now.positions, rounds)
    over = bool(at_rest.all()) or now.rounds + rounds >= config.rounds or torch.equal(positions, now.positions)
    following = after if over else now.phase
    moved = _drawn(
        problem, now, positions, phase=following, rounds=0 if over else now.rounds + rounds, energies=energies,
        at_rest=at_rest,
    )  # fmt: skip
    return _ended(problem, config, moved) if following == "done" else moved


def _descended(
    problem: MolecularProblem, config: Search, positions: Tensor, rounds: int
) -> tuple[Tensor, Tensor, Tensor]:
    if not problem.smooth:
        return problem.relaxed(positions, rounds)
    start = begun(problem.objective, positions.reshape(len(positions), -1))
    settings = Minimiser(rounds=rounds, tolerance=config.tolerance)
    found = descend(problem.objective, start, settings, problem.curvature)
    return found.points.view(positions.shape), found.losses, found.converged


def _drawn(
    problem: MolecularProblem,
    now: Shapes,
    positions: Tensor,
    *,
    phase: str,
    rounds: int,
    energies: Tensor | None = None,
    at_rest: Tensor | None = None,
) -> Shapes:
    """Return the snapshot of these members: energies, curves, and their path where it has come to the next moment."""
    if energies is None:
        energies = problem.energies(positions)
    rest = torch.zeros_like(energies) if at_rest is None else at_rest.to(energies)
    path, stride = _path(now, positions)
    return replace(
        now, step=min(now.step + 1, now.total - 1), phase=phase, rounds=rounds, positions=positions,
        energies=energies, at_rest=rest, path=path, stride=stride,
        lowest=torch.cat([now.lowest, energies.min()[None]]), mean=torch.cat([now.mean, energies.mean()[None]]),
    )  # fmt: skip


def _path(now: Shapes, positions: Tensor) -> tuple[Tensor, int]:
    """Return the moments kept, of one number of members; where there is no place, every second is dropped."""
    moment = positions.detach()[None].float()
    if now.path.shape[1:] != moment.shape[1:]:
        return moment, 1
    most = max(2, min(PATH_MOST, PATH_BYTES // (4 * moment.numel())))
    if len(now.lowest) % now.stride:
        return now.path, now.stride
    path = torch.cat([now.path, moment])
    return (path[::2], 2 * now.stride) if len(path) > most else (path, now.stride)


def _ended(problem: MolecularProblem, config: Search, now: Shapes) -> Shapes:
    """Return the last snapshot: members in order of energy, how unlike they are, and the outcome."""
    order = now.energies.argsort(stable=True)
    distances = problem.unlike(now.positions[order])
    now = replace(
        now, step=now.total, phase="done", positions=now.positions[order], energies=now.energies[order],
        at_rest=now.at_rest[order], path=now.path[:, order], distances=distances,
    )  # fmt: skip
    return replace(now, outcome=_sentence(now, config))


def _sentence(now: Shapes, config: Search) -> str:
    kept: list[int] = []
    for index in range(len(now.energies)):
        if all(now.distances[index, other] >= config.alike for other in kept):
            kept.append(index)
    n, shapes = len(now.energies), len(kept)
    members, kinds = "conformer" if n == 1 else "conformers", "shape" if shapes == 1 else "different shapes"
    span = now.energies[-1].item() - now.energies[0].item()
    moving = n - int(now.at_rest.sum())
    found = f"{n} {members}, {shapes} {kinds} within {span:.1f} kcal/mol"
    return found + (f"; {moving} had not come to rest after {config.rounds:,} rounds" if moving else "")


def _spreads(problem: MolecularProblem, config: Search, members: int) -> bool:
    apart = config.method != "plain" and problem.turning > 0
    return apart and (config.start != "few" or members < config.members)


def _embeddings(problem: MolecularProblem, config: Search) -> int:
    if config.start == "one":
        return 1
    spread = config.start == "few" and config.method != "plain" and problem.turning > 0
    share = max(FEW, problem.fixed / (problem.fixed + problem.turning)) if spread else 1.0
    return math.ceil(share * config.members)


def _total(problem: MolecularProblem, config: Search) -> int:
    """Return about how many snapshots there will be: minimisations end earlier than their last round."""
    parts = math.ceil(_embeddings(problem, config) / AT_A_TIME)
    spread = config.steps if config.method != "plain" and problem.turning else 0
    return parts + spread + 16


def _harmless(config: Search) -> Harmless:
    return Harmless(
        steps=config.steps, rate=RATE, method=config.method, energy=config.energy, kappa=config.kappa,
        weight=config.weight, width=config.width,
    )  # fmt: skip
