"""FuseDream: a frozen generator's latents are optimised until a frozen CLIP likes the picture.

Liu, Gong, Wu, Zhang, Su and Liu, "FuseDream: Training-Free Text-to-Image Generation with Improved CLIP+GAN Space
Optimization", 2021, arXiv 2112.01573.

    scout   (Z, Y) = the k of M random latents whose pictures G(z, y) have the highest CLIP score
    blend   z = sum_j softmax_j(W_z)_j * Z_j      y = sum_j softmax_j(W_y)_j * Y_j      (each coordinate by itself)
            max over Z, Y, W_z, W_y of  s_Aug(G(z + s eps, y + s eps'), T) = mean over r views A of cos(CLIP(A(G)), T)
            by Adam; after each step Z is clamped to [-c, c]

Written after the official code, which differs from the paper in small things (plain CLIP ranks the scouts). What we
changed: the scouts' CLIP features are kept, so scouting is one matrix product; the best scouted picture counts as
iterate 0; every iterate is measured on the same fixed views and the best is kept, with the noise it was drawn with,
so the picture returned is the picture scored; the text is encoded once; n pictures are dreamed at once. Random
weights W ~ N(0, 1) start as an average of the basis, at 0.58 of a latent's spread for k = 5: `start_bias` adds to
the best scout's weights, so that the blend starts near it (0 is the paper, and the default: with the embedded weights
0 and 3 tied on 16 prompts, 0.722 each on held-out views). The paper's Adam rate is 5e-3 over 500-1000 steps; 50 steps
went furthest with 0.05 (0.722; 0.02 gave 0.716). Composing two pictures is not part of this file.

n pictures of one prompt may also spread over what CLIP likes as well (see `harmless_adam`): each step of Adam is
then followed by a correction that pushes the pictures' features apart and climbs no loss. The push is refreshed once
in `refresh` steps, the budget checked once in `check` steps on the step's own views and noise.
"""

__all__ = ["Dream", "DreamProblem", "FuseDreamConfig", "adam_step", "blend", "fusedream", "pull"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.core.snapshots import Snapshot
from studio.methods.diversity import clipped, energy, nearest_gap
from studio.methods.harmless_adam import (
    BETAS,
    EPSILON,
    HARMLESS,
    adam_correction,
    adjusted_reach,
    fade,
    slack_of,
    within_budget,
)
from studio.methods.scouting import ScoutProblem, Scouts, scouted

Leaves = tuple[Tensor, ...]


@dataclass(frozen=True)
class FuseDreamConfig:
    """Settings of a run; the paper's k = 5, r = 50, rate 5e-3, noise 0.01, clamp 2 and M = 10,000.

    `score`: augclip | clip. `optimise`: blend | single (k = 1) | none (only scout). `scout`: bank | fresh | none
    (random start). `yardstick`: how many fixed views measure an iterate. `method`: plain | point | sum | max
    (harmless diversity) | linear (the score minus `weight` times the energy); `refresh` 0 measures no distances.
    """

    steps: int = 200
    basis: int = 5
    copies: int = 8
    learning_rate: float = 0.05
    latent_noise: float = 0.01
    clamp: float = 2.0
    start_bias: float = 0.0
    samples: int = 1024
    yardstick: int = 8
    score: str = "augclip"
    optimise: str = "blend"
    scout: str = "bank"
    apart: bool = False
    method: str = "plain"
    energy: str = "riesz0"
    kappa: float = 0.5
    reach: float = 1.0
    settle: float = 0.2
    weight: float = 0.1
    refresh: int = 0
    check: int = 16


@runtime_checkable
class DreamProblem(ScoutProblem, Protocol):
    """What FuseDream needs to know: a generator, a score and random latents; n pictures at once."""

    def decode(self, z: Tensor, y: Tensor) -> Float[Tensor, "n 3 h w"]:
        """Return pictures in [-1, 1], differentiable in the latents."""
        ...

    def draws(self, copies: int, generator: torch.Generator) -> Sequence[Any]:
        """Return the parameters of `copies` random views in batches that fit in memory; 0 is the plain view."""
        ...

    def score(self, images: Float[Tensor, "n 3 h w"], draw: Any) -> Float[Tensor, "n r"]:
        """Return the cosine of each view of a draw with its target."""
        ...

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return the features in which pictures differ, differentiable in the pictures."""
        ...

    def held_out(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the score under augmentations that no run optimises for."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Dream(Snapshot):
    """n pictures being dreamed, as latents; everything needed to go on is here.

    `z`, `y`: the newest iterate, `best_z`, `best_y`: the best so far with its score `best_scores`; `scores`: every
    iterate's score, the start included; `augmented`: its score on the fixed augmented views, whatever is optimised;
    `scouted`: latents looked at. `leaves`: Z, Y, W_z, W_y, each (n, k, d);
    `moments`: Adam's first and second moments of each; `random`: the generator's state after this step. `gaps`: the
    mean distance to the nearest other picture, as last measured at each step (empty where nothing measures it);
    `pushes`: the energy's slope as last taken, `reach`: how far each picture's correction may go.
    """

    z: Float[Tensor, "n dz"]
    y: Float[Tensor, "n dy"]
    best_z: Float[Tensor, "n dz"]
    best_y: Float[Tensor, "n dy"]
    best_scores: Float[Tensor, " n"]
    scores: Float[Tensor, "n t"]
    augmented: Float[Tensor, "n t"]
    scouted: int
    leaves: Leaves
    moments: Leaves
    random: Tensor
    gaps: Float[Tensor, " g"]
    pushes: Float[Tensor, "n p"]
    reach: Float[Tensor, " n"]


def fusedream(
    problem: DreamProblem, config: FuseDreamConfig, generator: torch.Generator, start: Dream | None = None
) -> Run[Dream]:
    """Yield the best scouted pictures, then every step of the blend; `start` is a snapshot to go on from.

    Ten steps equal five and five more. The generator is used up; its state travels in the snapshots.
    """
    ruler = problem.draws(config.yardstick, generator_from(0, "yardstick"))
    if start is None:
        now = None
        for now in _scout(problem, config, generator, ruler):
            yield now
        if now is None:
            raise ValueError(f"samples must be at least the basis of {config.basis}: scouting found too few latents")
    else:
        now = _resumable(problem, start)
        if now.step >= config.steps:
            yield now
    generator.set_state(now.random)
    while now.step < config.steps and config.optimise != "none":
        now = _step(problem, config, generator, ruler, now)
        yield now


def blend(leaves: Leaves) -> tuple[Float[Tensor, "n dz"], Float[Tensor, "n dy"]]:
    """Return z and y: the bases mixed by per-coordinate softmax weights (the paper's over-parameterisation)."""
    basis_z, basis_y, weights_z, weights_y = leaves
    return (weights_z.softmax(dim=1) * basis_z).sum(dim=1), (weights_y.softmax(dim=1) * basis_y).sum(dim=1)


def pull(
    problem: DreamProblem, images: Float[Tensor, "n 3 h w"], draws: Sequence[Any]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3 h w"]]:
    """Return each picture's mean score over all draws and its gradient, holding one draw's graph at a time."""
    screen = images.detach().requires_grad_()
    total, slope, count = torch.zeros(len(images), device=images.device), torch.zeros_like(screen), 0
    for draw in draws:
        scores = problem.score(screen, draw)
        (part,) = torch.autograd.grad(scores.sum(), screen)
        total, slope, count = total + scores.detach().sum(dim=1).float(), slope + part, count + scores.shape[1]
    return total / count, slope / count


def adam_step(leaf: Tensor, slope: Tensor, moments: tuple[Tensor, Tensor], step: int, rate: float) -> Leaves:
    """Return the leaf after an uphill step of Adam (Kingma and Ba, 2014, algorithm 1) and its two new moments."""
    first = BETAS[0] * moments[0] + (1 - BETAS[0]) * slope
    second = BETAS[1] * moments[1] + (1 - BETAS[1]) * slope * slope
    scale = (second / (1 - BETAS[1] ** step)).sqrt() + EPSILON
    return leaf + rate * first / (1 - BETAS[0] ** step) / scale, first, second


def _scout(
    problem: DreamProblem, config: FuseDreamConfig, generator: torch.Generator, ruler: Sequence[Any]
) -> Run[Dream]:
    """Yield a snapshot for every batch of candidates, the best k so far as the bases."""
    k = 1 if config.optimise == "single" else config.basis
    for kept, seen in scouted(problem, k, config.scout, config.samples, generator, config.apart):
        yield _start(problem, config, generator, ruler, kept, seen)


def _start(
    problem: DreamProblem,
    config: FuseDreamConfig,
    generator: torch.Generator,
    ruler: Sequence[Any],
    kept: Scouts,
    seen: int,
) -> Dream:
    """Return iterate 0: the best scouted picture, and the weights the blend will start from."""
    basis_z, basis_y, _ = kept
    random = generator.get_state()
    weights = [torch.randn(basis.shape, generator=generator).to(basis) for basis in (basis_z, basis_y)]
    for weight in weights:
        weight[:, 0] += config.start_bias
    ready = generator.get_state()
    generator.set_state(random)
    z, y = basis_z[:, 0].clone(), basis_y[:, 0].clone()
    images = _decoded(problem, z, y)
    augmented = scores = _scores(problem, images, ruler)
    if config.score == "clip":
        scores = _scores(problem, images, problem.draws(0, generator_from(0, "plain")))
    held_out = _held_out(problem, images) if config.optimise == "none" else scores
    leaves = (basis_z, basis_y, *weights)
    return Dream(
        step=0,
        total=0 if config.optimise == "none" else config.steps,
        phase="scout",
        outcome=_sentence(scores, held_out, "scouting") if config.optimise == "none" else "",
        z=z, y=y, best_z=z, best_y=y, best_scores=scores, scores=scores[:, None],
        augmented=augmented[:, None], scouted=seen,
        leaves=leaves,
        moments=tuple(torch.zeros_like(leaf) for leaf in leaves for _ in range(2)),
        random=ready,
        gaps=_gap(problem, images) if config.refresh else z.new_zeros(0),
        pushes=torch.zeros_like(_flat(leaves))[:, : None if config.method != "plain" else 0],
        reach=z.new_full((len(z),), config.reach),
    )  # fmt: skip


def _step(
    problem: DreamProblem, config: FuseDreamConfig, generator: torch.Generator, ruler: Sequence[Any], last: Dream
) -> Dream:
    """Return the snapshot after one step: measure where the leaves stand, keep the best, move the leaves."""
    step = last.step + 1
    leaves = tuple(leaf.detach().requires_grad_() for leaf in last.leaves)
    noise = [config.latent_noise * torch.randn(p.shape, generator=generator).to(p) for p in (last.z, last.y)]
    z, y = (part + jitter for part, jitter in zip(blend(leaves), noise, strict=True))
    images = problem.decode(z, y)
    draws = problem.draws(config.copies if config.score == "augclip" else 0, generator)
    own, slope = pull(problem, images, draws)
    pushes, gaps = last.pushes, last.gaps[-1:]
    if config.refresh and last.step % config.refresh == 0:
        pushes, gaps = _push(problem, images, leaves, config)
    slopes = torch.autograd.grad(images, leaves, slope)
    if config.method == "linear":
        slopes = [s - config.weight * push for s, push in zip(slopes, _unflat(pushes, leaves), strict=True)]
    augmented = _scores(problem, images.detach(), ruler)
    scores = own if config.score == "clip" else augmented
    z, y = z.detach(), y.detach()
    better = scores > last.best_scores
    best_z, best_y = (torch.where(better[:, None], new, old) for new, old in ((z, last.best_z), (y, last.best_y)))
    moved, moments = _moved(config, leaves, slopes, last.moments, step)
    reach = last.reach
    if config.method in HARMLESS:

        def losses(leaves: Leaves) -> Tensor:
            return -_scores(
                problem, _decoded(problem, *(p + j for p, j in zip(blend(leaves), noise, strict=True))), draws
            )

        moved, reach = _corrected(config, moved, moments, pushes, reach, step, -own, losses)
    best = torch.maximum(scores, last.best_scores)
    ended = step == config.steps
    return Dream(
        step=step,
        total=config.steps,
        phase="blend",
        outcome=_told(problem, best, best_z, best_y, f"{step} steps", config.refresh > 0) if ended else "",
        z=z, y=y, best_z=best_z, best_y=best_y, best_scores=best,
        scores=torch.cat((last.scores, scores[:, None]), dim=1),
        augmented=torch.cat((last.augmented, augmented[:, None]), dim=1),
        scouted=last.scouted,
        leaves=moved,
        moments=moments,
        random=generator.get_state(),
        gaps=torch.cat((last.gaps, gaps)), pushes=pushes, reach=reach,
    )  # fmt: skip


def _resumable(problem: DreamProblem, start: Dream) -> Dream:
    if len(start.z) != len(problem.target):
        raise ValueError(f"images must stay {len(start.z)} when a run goes on, got {len(problem.target)}: start anew")
    return start


def _moved(
    config: FuseDreamConfig, leaves: Leaves, slopes: Sequence[Tensor], moments: Leaves, step: int
) -> tuple[Leaves, Leaves]:
    moved, kept = [], []
    for index, (leaf, slope) in enumerate(zip(leaves, slopes, strict=True)):
        pair = (moments[2 * index], moments[2 * index + 1])
        after, *pair_after = adam_step(leaf.detach(), slope, pair, step, config.learning_rate)
        moved.append(after.clamp(-config.clamp, config.clamp) if index == 0 else after)
        kept += pair_after
    return tuple(moved), tuple(kept)


def _push(
    problem: DreamProblem, images: Tensor, leaves: Leaves, config: FuseDreamConfig
) -> tuple[Float[Tensor, "n p"], Float[Tensor, "1"]]:
    """Return the energy's slope in the leaves, each member's clipped to the median length, and the nearest distance.

    The graph is kept, for the score's slope comes after.
    """
    if config.method == "plain":
        return images.new_zeros(len(images), 0), _gap(problem, images.detach())
    features = problem.features(images)
    pushes = _flat(torch.autograd.grad(energy(config.energy)(features), leaves, retain_graph=True))
    return clipped(pushes), nearest_gap(features.detach())[None].float()


def _corrected(
    config: FuseDreamConfig,
    leaves: Leaves,
    moments: Leaves,
    pushes: Tensor,
    reach: Tensor,
    step: int,
    before: Tensor,
    losses: Callable[[Leaves], Tensor],
) -> tuple[Leaves, Tensor]:
    """Return the leaves after the harmless correction, checked where it is due, and each member's new reach."""
    first = -_flat(moments[::2]) / (1 - BETAS[0] ** step)
    scale = (_flat(moments[1::2]) / (1 - BETAS[1] ** step)).sqrt() + EPSILON
    far = reach * fade(step - 1, config.steps, config.settle)
    slack = slack_of(before, config.method)
    delta = adam_correction(first, scale, pushes, slack, far, config.learning_rate, config.method == "sum")
    if step % config.check == 0:
        after = losses(_shifted(leaves, delta, config))
        kept = within_budget(before, losses(leaves), after, config.kappa, config.method)
        delta, reach = delta * kept[:, None], adjusted_reach(reach, kept, config.reach)
    return _shifted(leaves, delta, config), reach


def _shifted(leaves: Leaves, delta: Tensor, config: FuseDreamConfig) -> Leaves:
    basis_z, *others = (leaf + part for leaf, part in zip(leaves, _unflat(delta, leaves), strict=True))
    return basis_z.clamp(-config.clamp, config.clamp), *others


def _flat(leaves: Sequence[Tensor]) -> Float[Tensor, "n p"]:
    return torch.cat([leaf.flatten(1) for leaf in leaves], dim=1)


def _unflat(flat: Float[Tensor, "n p"], leaves: Leaves) -> Leaves:
    parts = flat.split([leaf[0].numel() for leaf in leaves], dim=1)
    return tuple(part.view_as(leaf) for part, leaf in zip(parts, leaves, strict=True))


@torch.no_grad()
def _gap(problem: DreamProblem, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "1"]:
    return nearest_gap(problem.features(images))[None].float()


@torch.no_grad()
def _scores(problem: DreamProblem, images: Float[Tensor, "n 3 h w"], draws: Sequence[Any]) -> Float[Tensor, " n"]:
    return torch.cat([problem.score(images, draw) for draw in draws], dim=1).mean(dim=1).float()


@torch.no_grad()
def _decoded(problem: DreamProblem, z: Tensor, y: Tensor) -> Float[Tensor, "n 3 h w"]:
    return problem.decode(z, y)


@torch.no_grad()
def _held_out(problem: DreamProblem, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    return problem.held_out(images)


def _told(problem: DreamProblem, scores: Tensor, z: Tensor, y: Tensor, by: str, spread: bool) -> str:
    images = _decoded(problem, z, y)
    said = _sentence(scores, _held_out(problem, images), by)
    if not spread:
        return said
    return f"{said}; mean {scores.mean().item():.3f}, nearest pictures {_gap(problem, images).item():.3f} apart"


def _sentence(scores: Tensor, held_out: Tensor, by: str) -> str:
    own, other = scores.max().item(), held_out[scores.argmax()].item()
    return f"best score {own:.3f} after {by}; {other:.3f} under augmentations it was not optimised for"
