"""A small study with words and pictures, to try pages on without any weights."""

__all__ = ["Painting", "Sketching"]

import time
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch

from studio.core.controls import Choice, Knob, Range, Words
from studio.core.runs import Run
from studio.core.snapshots import Snapshot
from studio.scenes import Curves, Images, Series
from studio.studies.study import Study


@dataclass(frozen=True, kw_only=True, eq=False)
class Stroke(Snapshot):
    pixels: torch.Tensor


@dataclass(frozen=True)
class Painting(Study):
    name: ClassVar[str] = "painting"
    title: ClassVar[str] = "Painting"
    summary: ClassVar[str] = "Noise in the colour of a prompt."
    papers: ClassVar = ()

    prompt: Annotated[str, Words(200, ("a red fox", "a blue cup")), Knob("Prompt", "what to paint")] = "a red fox"
    steps: Annotated[int, Range(1, 1000), Knob("Steps")] = 5
    rate: Annotated[float, Range(1e-4, 1.0, log=True), Knob("Rate", advanced=True)] = 0.1
    style: Annotated[str, Choice("noise", "flat", "plain"), Knob("Style")] = "noise"
    bright: Annotated[bool, Knob("Bright")] = False
    nap: Annotated[float, Range(0.0, 1.0), Knob("Nap", "seconds a stroke", advanced=True)] = 0.002

    def run(self, start: Stroke | None = None) -> Run[Stroke]:
        for step in range(0 if start is None else start.step, self.steps + 1):
            if self.prompt == "break":
                raise RuntimeError("/secret/path <b>broke</b>")
            if self.prompt == "weights":
                raise ValueError("no weights here: <put> them in a folder")
            time.sleep(self.nap)
            generator = np.random.default_rng([self.seed, len(self.prompt), step])
            pixels = torch.from_numpy(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8))
            end = f"painted {self.prompt}" if step == self.steps else ""
            yield Stroke(step=step, total=self.steps, phase="paint", outcome=end, pixels=pixels)

    def view(self, snapshot):
        x = np.arange(snapshot.step + 1, dtype=float)
        curve = Curves("Score", "step", "score", (Series("score", x, np.sqrt(x)),))
        return Images(snapshot.pixels[None].numpy(), (self.prompt,)), curve

    def forecast(self):
        return f"{self.steps} strokes of {self.prompt[:40]}."

    def baseline(self):
        return None if self.style == "plain" else replace(self, style="plain")

    @classmethod
    def tiny(cls):
        return replace(cls(), steps=2)


@dataclass(frozen=True)
class Sketching(Painting):
    """Painting without a chart, which costs more than everything else a page shows of it."""

    name: ClassVar[str] = "sketching"
    title: ClassVar[str] = "Sketching"

    def view(self, snapshot):
        return super().view(snapshot)[:1]
