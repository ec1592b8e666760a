"""A study that counts, for tests of the desk: quick steps, the law 'ten steps are five and five', errors on demand."""

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import torch
from torch import Tensor

from studio.core.controls import Choice, Knob, Range
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.core.snapshots import Snapshot
from studio.scenes import Scene
from studio.studies.study import Study


@dataclass(frozen=True, kw_only=True, eq=False)
class Count(Snapshot):
    """A random walk and the state of its dice."""

    walk: Tensor
    random: Tensor


@dataclass(frozen=True)
class Counting(Study):
    """Walks at random, one number a step."""

    name: ClassVar[str] = "counting"
    title: ClassVar[str] = "Counting"
    summary: ClassVar[str] = "Walks at random."
    papers: ClassVar = ()

    steps: Annotated[int, Range(1, 100_000), Knob("Steps")] = 20
    nap: Annotated[float, Range(0.0, 10.0), Knob("Nap", "seconds a step")] = 0.0
    fails: Annotated[str, Choice("never", "sentence", "crash"), Knob("Fails")] = "never"

    def run(self, start: Count | None = None) -> Run[Count]:
        """Return the walk; at half way it may fail."""
        return self._walked(start)

    def _walked(self, start: Count | None) -> Generator[Count, None, None]:
        generator = generator_from(self.seed, "counting")
        now = start or Count(step=0, total=self.steps, phase="walk", walk=torch.zeros(1), random=generator.get_state())
        yield replace(now, total=self.steps)
        while now.step < self.steps:
            generator.set_state(now.random)
            walk = torch.cat((now.walk, now.walk[-1:] + torch.randn(1, generator=generator)))[-100:]
            step = now.step + 1
            if 2 * step > self.steps and self.fails == "sentence":
                raise ValueError("this walk is too long: take fewer steps")
            if 2 * step > self.steps and self.fails == "crash":
                raise RuntimeError("a fault of ours")
            time.sleep(self.nap)
            now = Count(
                step=step, total=self.steps, phase="walk", walk=walk, random=generator.get_state(),
                outcome=f"walked to {walk[-1].item():.3f}" if step == self.steps else "",
            )  # fmt: skip
            yield now

    def view(self, snapshot: Count) -> tuple[Scene, ...]:
        """Return nothing to see."""
        return ()

    @classmethod
    def tiny(cls) -> Self:
        """Return three steps."""
        return cls(steps=3)
