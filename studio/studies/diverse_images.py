"""Diverse images: one prompt, several pictures that answer it equally well and differently."""

__all__ = ["DiverseImages"]

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from studio.core.controls import Choice, Knob, Range
from studio.core.devices import best_device
from studio.core.papers import FUSEDREAM, HARMLESS, Paper
from studio.methods.diversity import ENERGIES, nearest_distances
from studio.methods.fusedream import Dream, FuseDreamConfig
from studio.problems.clip_image import plain_features
from studio.problems.pairs import load_judge, load_pair
from studio.scenes import Curves, Images, Members, Scene, Series
from studio.studies.fusedream import FuseDream

REFRESH = 4


@dataclass(frozen=True)
class DiverseImages(FuseDream):
    """FuseDream on n pictures of one prompt at once, which also push each other apart as far as it costs no score."""

    name: ClassVar[str] = "diverse_images"
    title: ClassVar[str] = "Diverse images"
    shelf: ClassVar[str] = "Images"
    summary: ClassVar[str] = (
        "One prompt, several answers: pictures start apart, climb CLIP's score and part further where it is free."
    )
    papers: ClassVar[tuple[Paper, ...]] = (HARMLESS, FUSEDREAM)

    images: Annotated[int, Range(2, 16), Knob("Pictures", "dreamed together")] = 6
    steps: Annotated[int, Range(1, 2000), Knob("Steps", "more steps cost less score for the same spread")] = 100
    method: Annotated[
        str,
        Choice("point", "sum", "max", "linear", "plain"),
        Knob("Method", "point, sum, max: harmless to each score, their sum, the worst; linear: a weighted sum"),
    ] = "point"
    copies: Annotated[int, Range(1, 64), Knob("Augmented views", "a step; the paper takes 50", advanced=True)] = 4
    apart: Annotated[
        bool, Knob("Scouts apart", "each picture starts from scouts of its own, unlike the others'", advanced=True)
    ] = True
    energy: Annotated[
        str, Choice(*ENERGIES), Knob("Energy", "how crowding is measured, in CLIP's features", advanced=True)
    ] = "riesz0"
    reach: Annotated[
        float, Range(0.0, 2.0), Knob("Reach", "longest push, in lengths of the step uphill", advanced=True)
    ] = 0.4
    kappa: Annotated[
        float, Range(0.0, 0.95), Knob("Budget", "share of each gain that spreading may spend", advanced=True)
    ] = 0.5
    weight: Annotated[
        float, Range(1e-4, 10.0, log=True), Knob("Weight", "of the energy in the linear method", advanced=True)
    ] = 0.1

    def view(self, snapshot: Dream) -> tuple[Scene, ...]:
        """Return the pictures in order of their distance from the best, the trade-off, and how it came about."""
        pair = load_pair(self.weights, str(best_device(self.device)))
        like = pair.decoder.embeddings.weight
        with torch.no_grad():
            images = pair.decoder(snapshot.best_z.to(like), snapshot.best_y.to(like)).float().clamp(-1, 1)
            features = (
                plain_features(load_judge(str(like.device)) if self._judged else pair.clip, images).double().cpu()
            )
        scores = snapshot.best_scores.double().cpu()
        far = torch.cdist(features, features[scores.argmax()][None], compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
        order = far.argsort(stable=True)
        pixels = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()[order].numpy()
        captions = tuple(
            f"score {score:.3f}" + (f", {distance:.2f} from the first" if index else ", the best")
            for index, (score, distance) in enumerate(zip(scores[order].tolist(), far[order].tolist(), strict=True))
        )
        trade = self._members(scores[order], nearest_distances(features)[order], pixels)
        return Images(pixels, captions), trade, *self._history(snapshot)

    def baseline(self) -> "DiverseImages | None":
        """Return as many pictures as FuseDream alone dreams them, from shared scouts; None where this is it."""
        plain = replace(self, method="plain", apart=False)
        return None if self == plain else plain

    @classmethod
    def tiny(cls) -> Self:
        """Return two pictures, five steps and two views."""
        return replace(super().tiny(), images=2, steps=5)

    @property
    def _judged(self) -> bool:
        """Whether distances are taken by a network that nothing here was optimised for."""
        return self.weights == "embedded"

    def _config(self, samples: int) -> FuseDreamConfig:
        return replace(
            super()._config(samples), method=self.method, energy=self.energy, kappa=self.kappa, reach=self.reach,
            weight=self.weight, refresh=REFRESH, apart=self.apart,
        )  # fmt: skip

    def _members(self, scores: Float[Tensor, " n"], nearest: Float[Tensor, " n"], pixels: np.ndarray) -> Members:
        captions = tuple(
            f"Picture {index + 1}: score {score:.3f}, the nearest other one {gap:.2f} away"
            for index, (score, gap) in enumerate(zip(scores.tolist(), nearest.tolist(), strict=True))
        )
        whose = "judge" if self._judged else "CLIP's own"
        return Members(
            "Score and difference", "loss (minus the score)", f"distance to nearest ({whose})",
            (-scores).numpy(), nearest.numpy(), captions, pixels,
        )  # fmt: skip

    def _history(self, snapshot: Dream) -> tuple[Curves, ...]:
        scores = snapshot.augmented.double().cpu().numpy()
        steps = np.arange(snapshot.step + 1 - scores.shape[1], snapshot.step + 1, dtype=np.float64)
        lines = (Series("mean", steps, scores.mean(axis=0)), Series("worst", steps, scores.min(axis=0)))
        gaps = snapshot.gaps.double().cpu().numpy()
        gap = Series("nearest other picture", steps[-len(gaps) :], gaps)
        return (
            Curves("AugCLIP on fixed views", "step", "score", lines),
            Curves("Spread in CLIP's features", "step", "distance", (gap,)),
        )
