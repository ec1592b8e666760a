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
"""

__all__ = ["Dream", "DreamProblem", "FuseDreamConfig", "adam_step", "blend", "fusedream", "pull", "top_k"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.core.snapshots import Snapshot

PAPER_RATE = 5e-3
BETAS = (0.9, 0.999)
EPSILON = 1e-8
Leaves = tuple[Tensor, ...]
Scouts = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class FuseDreamConfig:
    """Settings of a run; the paper's k = 5, r = 50, rate 5e-3, noise 0.01, clamp 2 and M = 10,000.

    `score`: augclip | clip. `optimise`: blend | single (k = 1) | none (only scout). `scout`: bank | fresh | none
    (random start). `yardstick`: how many fixed views measure an iterate.
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


@runtime_checkable
class DreamProblem(Protocol):
    """What FuseDream needs to know: a generator, a score and random latents; n pictures at once."""

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

    def decode(self, z: Tensor, y: Tensor) -> Float[Tensor, "n 3 h w"]:
        """Return pictures in [-1, 1], differentiable in the latents."""
        ...

    def draws(self, copies: int, generator: torch.Generator) -> Sequence[Any]:
        """Return the parameters of `copies` random views in batches that fit in memory; 0 is the plain view."""
        ...

    def score(self, images: Float[Tensor, "n 3 h w"], draw: Any) -> Float[Tensor, "n r"]:
        """Return the cosine of each view of a draw with its target."""
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
    `moments`: Adam's first and second moments of each; `random`: the generator's state after this step.
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


def top_k(features: Float[Tensor, "m d"], target: Float[Tensor, "n d"], k: int) -> Int[Tensor, "n k"]:
    """Return for each target the k rows with the highest product, best first, the earlier of two equals."""
    products = target.float() @ features.float().T
    return products.sort(dim=1, descending=True, stable=True).indices[:, :k]


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
    turns, seen = _turns(problem.target) * (config.scout != "none"), 0
    wide = max(k, 1 + int(turns.max()))
    kept: Scouts | None = None
    for batch in _candidates(problem, config, generator, len(turns) * wide):
        seen += len(batch[0])
        kept = _keep(problem, config, batch, kept, wide)
        if kept[0].shape[1] == wide:
            yield _start(problem, config, generator, ruler, _turned(kept, turns, k), seen)


def _turns(target: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """Return how many members before each one want the same: the i-th picture of a prompt starts at scout i."""
    return (target[:, None] == target[None]).all(dim=2).tril(-1).sum(dim=1)


def _turned(kept: Scouts, turns: Int[Tensor, " n"], k: int) -> Scouts:
    """Return k bases a member, its own first, then the best of the others."""
    order = torch.arange(kept[0].shape[1], device=turns.device).expand(len(turns), -1)
    own_first = torch.where(order == turns[:, None], -1, order).sort(dim=1, stable=True).indices[:, :k, None]
    return tuple(part.gather(1, own_first.expand(-1, -1, part.shape[2])) for part in kept)  # type: ignore[return-value]


def _candidates(
    problem: DreamProblem, config: FuseDreamConfig, generator: torch.Generator, count: int
) -> Iterator[Scouts]:
    if config.scout != "none":
        return problem.candidates(config.samples, config.scout == "fresh", generator)
    z, y = problem.random_latents(count, generator)
    return iter([(z, y, torch.zeros(count, problem.target.shape[1], device=z.device))])


def _keep(problem: DreamProblem, config: FuseDreamConfig, batch: Scouts, kept: Scouts | None, k: int) -> Scouts:
    """Return the best k of a batch and of those kept before, as (n, k, d) tensors with their features."""
    target = problem.target
    if config.scout == "none":
        return tuple(part.view(len(target), k, -1) for part in batch)  # type: ignore[return-value]
    rows = top_k(batch[2], target, k)
    found = tuple(part[rows].float() for part in batch)
    if kept is None:
        return found  # type: ignore[return-value]
    both = tuple(torch.cat((old, new), dim=1) for old, new in zip(kept, found, strict=True))
    products = torch.einsum("nkd,nd->nk", both[2], target.float())
    order = products.sort(dim=1, descending=True, stable=True).indices[:, :k, None]
    return tuple(part.gather(1, order.expand(-1, -1, part.shape[2])) for part in both)  # type: ignore[return-value]


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
    )  # fmt: skip


def _step(
    problem: DreamProblem, config: FuseDreamConfig, generator: torch.Generator, ruler: Sequence[Any], last: Dream
) -> Dream:
    """Return the snapshot after one step: measure where the leaves stand, keep the best, move the leaves."""
    step = last.step + 1
    leaves = tuple(leaf.detach().requires_grad_() for leaf in last.leaves)
    z, y = (_jittered(part, config.latent_noise, generator) for part in blend(leaves))
    images = problem.decode(z, y)
    draws = problem.draws(config.copies if config.score == "augclip" else 0, generator)
    own, slope = pull(problem, images, draws)
    slopes = torch.autograd.grad(images, leaves, slope)
    augmented = _scores(problem, images.detach(), ruler)
    scores = own if config.score == "clip" else augmented
    z, y = z.detach(), y.detach()
    better = scores > last.best_scores
    best_z, best_y = (torch.where(better[:, None], new, old) for new, old in ((z, last.best_z), (y, last.best_y)))
    moved, moments = _moved(config, leaves, slopes, last.moments, step)
    best = torch.maximum(scores, last.best_scores)
    ended = step == config.steps
    return Dream(
        step=step,
        total=config.steps,
        phase="blend",
        outcome=_told(problem, best, best_z, best_y, f"{step} steps") if ended else "",
        z=z, y=y, best_z=best_z, best_y=best_y, best_scores=best,
        scores=torch.cat((last.scores, scores[:, None]), dim=1),
        augmented=torch.cat((last.augmented, augmented[:, None]), dim=1),
        scouted=last.scouted,
        leaves=moved,
        moments=moments,
        random=generator.get_state(),
    )  # fmt: skip


def _jittered(part: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    return part + noise * torch.randn(part.shape, generator=generator).to(part)


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


@torch.no_grad()
def _scores(problem: DreamProblem, images: Float[Tensor, "n 3 h w"], draws: Sequence[Any]) -> Float[Tensor, " n"]:
    return torch.cat([problem.score(images, draw) for draw in draws], dim=1).mean(dim=1).float()


@torch.no_grad()
def _decoded(problem: DreamProblem, z: Tensor, y: Tensor) -> Float[Tensor, "n 3 h w"]:
    return problem.decode(z, y)


@torch.no_grad()
def _held_out(problem: DreamProblem, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    return problem.held_out(images)


def _told(problem: DreamProblem, scores: Tensor, z: Tensor, y: Tensor, by: str) -> str:
    return _sentence(scores, _held_out(problem, _decoded(problem, z, y)), by)


def _sentence(scores: Tensor, held_out: Tensor, by: str) -> str:
    own, other = scores.max().item(), held_out[scores.argmax()].item()
    return f"best score {own:.3f} after {by}; {other:.3f} under augmentations it was not optimised for"
