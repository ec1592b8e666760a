"""FuseDream: type a prompt and watch a frozen generator dream it."""

__all__ = ["FuseDream"]

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import numpy as np
import torch

from studio.core.controls import Choice, Knob, Range, Words
from studio.core.devices import best_device, free_memory
from studio.core.papers import FUSEDREAM, Paper
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.fusedream import Dream, FuseDreamConfig, fusedream
from studio.problems.clip_image import ClipImage
from studio.problems.pairs import load_pair, needed_bytes
from studio.problems.prompts import parse_prompt, prompt_target
from studio.scenes import Curves, Images, Scene, Series
from studio.studies.study import Study

EXAMPLES = (
    "a red apple on a blue background",
    "a fox on a green background",
    "a sailboat on a yellow background",
    "a slice of pizza",
    "an owl:2 | purple background",
    "a flower:1.5 | pink background | blurry:-0.5",
)
SHARE = 0.8


@dataclass(frozen=True)
class FuseDream(Study):
    """Text to image without training: latents of a frozen generator climb the score of a frozen CLIP."""

    name: ClassVar[str] = "fusedream"
    title: ClassVar[str] = "FuseDream"
    shelf: ClassVar[str] = "Images"
    summary: ClassVar[str] = (
        "Type a prompt. The best of many random pictures are found, blended, and improved until CLIP agrees "
        "that they show what you asked for."
    )
    papers: ClassVar[tuple[Paper, ...]] = (FUSEDREAM,)

    prompt: Annotated[
        str,
        Words(limit=500, examples=EXAMPLES),
        Knob("Prompt", "parts with | and give weights with :, as in 'a fox:2 | blue background | blurry:-0.5'"),
    ] = EXAMPLES[0]
    steps: Annotated[int, Range(1, 2000), Knob("Steps", "of the blend; the paper takes 500 to 1000")] = 200
    images: Annotated[int, Range(1, 8), Knob("Pictures", "dreamed at once from the same scouts")] = 1
    weights: Annotated[
        str,
        Choice("embedded", "biggan-deep-128", "biggan-deep-256", "biggan-deep-512"),
        Knob("Weights", "the embedded ones ship with the studio; BigGAN needs a download"),
    ] = "embedded"
    basis: Annotated[int, Range(1, 15), Knob("Basis", "how many scouted latents are blended", advanced=True)] = 5
    copies: Annotated[int, Range(1, 64), Knob("Augmented views", "a step; the paper takes 50", advanced=True)] = 8
    learning_rate: Annotated[
        float, Range(1e-4, 0.5, log=True), Knob("Learning rate", "of Adam; the paper's is 0.005", advanced=True)
    ] = 0.05
    latent_noise: Annotated[
        float, Range(0.0, 0.5), Knob("Latent noise", "added at every step; the paper's is 0.01", advanced=True)
    ] = 0.01
    start_bias: Annotated[
        float,
        Range(0.0, 10.0),
        Knob("Start bias", "pulls the first blend to the best scout; 0 is the paper", advanced=True),
    ] = 0.0
    score: Annotated[
        str, Choice("augclip", "clip"), Knob("Score", "augmented views, or the plain picture", advanced=True)
    ] = "augclip"
    optimise: Annotated[
        str,
        Choice("blend", "single", "none"),
        Knob("Optimise", "a blend, one latent, or nothing after scouting", advanced=True),
    ] = "blend"
    scout: Annotated[
        str,
        Choice("bank", "fresh", "none"),
        Knob("Scouts", "from the kept bank, drawn anew, or a random start", advanced=True),
    ] = "bank"
    samples: Annotated[
        int, Range(16, 10_000, log=True), Knob("Fresh scouts", "how many are drawn anew", advanced=True)
    ] = 1024
    device: Annotated[str, Choice("auto", "cpu", "cuda"), Knob("Device", advanced=True)] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_prompt(self.prompt)

    def run(self, start: Dream | None = None) -> Run[Dream]:
        """Return the dream, from scouting or on from a snapshot of an earlier run (its scouts and moments included).

        Raises `ValueError`, in one sentence, where weights are missing or memory is short.
        """
        device = best_device(self.device)
        batch = self._batch(device)
        pair = load_pair(self.weights, str(device))
        target = prompt_target(pair.clip, parse_prompt(self.prompt)).float()
        problem = ClipImage(pair.decoder, pair.clip, target.expand(self.images, -1), batch=batch)
        samples = self.samples
        if self.scout == "bank" and start is None:
            problem.bank = pair.bank()
            samples = pair.bank_size
        return self._dreamed(problem, samples, start)

    def view(self, snapshot: Dream) -> tuple[Scene, ...]:
        """Return the best pictures so far and the scores of every step."""
        pair = load_pair(self.weights, str(best_device(self.device)))
        like = pair.decoder.embeddings.weight
        with torch.no_grad():
            images = pair.decoder(snapshot.best_z.to(like), snapshot.best_y.to(like))
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        kind = "AugCLIP" if self.score == "augclip" else "CLIP"
        captions = tuple(f"{kind} {score:.3f}" for score in snapshot.best_scores.tolist())
        return Images(pixels.cpu().numpy(), captions), self._curves(snapshot)

    def baseline(self) -> "FuseDream | None":
        """Return the plain way from the same scouts: one latent, CLIP on the bare picture; None where this is it."""
        plain = replace(self, score="clip", optimise="single")
        return None if plain == self or self.optimise == "none" else plain

    def forecast(self) -> str:
        """Return the memory a run will need and where it will run; a `ValueError` where it is not there."""
        device = best_device(self.device)
        batch = self._batch(device)
        base, view = needed_bytes(self.weights, self.images, self.copies)
        whole = "all views of a step at once" if batch >= self._views() else f"{batch} views at a time"
        return f"about {(base + batch * view) / 2**20:,.0f} MB on the {str(device).upper()}, {whole}."

    @classmethod
    def tiny(cls) -> Self:
        """Return three steps with two views."""
        return cls(steps=3, copies=2, basis=2, samples=32, device="cpu")

    def _dreamed(self, problem: ClipImage, samples: int, start: Dream | None) -> Run[Dream]:
        config = self._config(samples)
        new = self.scout == "bank" and problem.bank is None and start is None
        for snapshot in fusedream(problem, config, generator_from(self.seed, "fusedream"), start):
            if new and problem.bank is not None:
                load_pair(self.weights, str(problem.target.device)).keep(problem.bank)
                new = False
            yield snapshot

    def _config(self, samples: int) -> FuseDreamConfig:
        return FuseDreamConfig(
            steps=self.steps, basis=self.basis, copies=self.copies, learning_rate=self.learning_rate,
            latent_noise=self.latent_noise, start_bias=self.start_bias, samples=samples,
            score=self.score, optimise=self.optimise, scout=self.scout,
        )  # fmt: skip

    def _views(self) -> int:
        return max(self.copies, FuseDreamConfig.yardstick)

    def _batch(self, device: torch.device) -> int:
        """Return how many views fit in memory at once, at least one; a `ValueError` where none does."""
        base, view = needed_bytes(self.weights, self.images, self.copies)
        free = int(SHARE * free_memory(device))
        if base + view > free:
            raise ValueError(
                f"images needs about {(base + view) / 2**20:,.0f} MB and {free / 2**20:,.0f} MB are free: "
                "take fewer images, or weights 'embedded'"
            )
        return min(self._views(), (free - base) // view)

    def _curves(self, snapshot: Dream) -> Curves:
        """Return the augmented score of every iterate, and of a single picture the best so far where that is kept."""
        scores = snapshot.augmented.cpu().double().numpy()
        first = snapshot.step + 1 - scores.shape[1]
        steps = np.arange(first, snapshot.step + 1, dtype=np.float64)
        lines = []
        for index, row in enumerate(scores):
            name = f" {index + 1}" if len(scores) > 1 else ""
            lines.append(Series(f"score{name}", steps, row))
            if self.score == "augclip" and len(scores) == 1:
                lines.append(Series(f"best{name}", steps, np.maximum.accumulate(row)))
        return Curves("AugCLIP on fixed views", "step", "score", tuple(lines))
