"""Learn one task after the other: a network that reuses, unlocks and grows neurons, and forgets nothing."""

__all__ = ["ContinualTasks"]

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Self

from torch import nn

from studio.core.controls import Choice, Knob, Range
from studio.core.devices import best_device
from studio.core.papers import FIREFLY, Paper
from studio.core.runs import Run
from studio.core.seeds import generator_from
from studio.methods.continual import CONTINUAL, Continual, ContinualConfig, continual, continual_steps
from studio.methods.firefly import FireflyConfig
from studio.nets.activations import ACTIVATIONS
from studio.nets.surgery import Edit
from studio.problems.task_streams import STREAMS, TaskStream, task_stream
from studio.scenes import Scene
from studio.studies.continual_view import accuracy_matrix, live_network, tasks_curves, tasks_network
from studio.studies.study import Study


@dataclass(frozen=True)
class ContinualTasks(Study):
    """Tasks that come one after the other, learnt by one network that grows only what it needs."""

    name: ClassVar[str] = "continual"
    title: ClassVar[str] = "Task after task"
    shelf: ClassVar[str] = "Networks"
    summary: ClassVar[str] = (
        "Each new task reuses the neurons there are, frees copies of some, grows the rest, and leaves every earlier "
        "task exactly as it was."
    )
    papers: ClassVar[tuple[Paper, ...]] = (FIREFLY,)

    data: Annotated[
        str, Choice(*STREAMS), Knob("Data", "digits ship with scikit-learn; the others need a folder of your own")
    ] = "digits"
    tasks: Annotated[int, Range(2, 20), Knob("Tasks", "the classes are dealt evenly to so many tasks")] = 5
    order: Annotated[int, Range(0, 1000), Knob("Order", "0: the classes as they come; else drawn by this number")] = 0
    family: Annotated[str, Choice("mlp", "vgg"), Knob("Network")] = "mlp"
    method: Annotated[
        str,
        Choice(*CONTINUAL),
        Knob(
            "Method",
            "firefly: share, unlock, grow; grown: grow for each task alone; separate: a fixed network a task; "
            "finetune: one network, retrained; packnet: one network, its weights dealt out",
        ),
    ] = "firefly"
    rounds: Annotated[int, Range(0, 10), Knob("Rounds", "of growth a task may have at most")] = 4
    stage: Annotated[int, Range(1, 2000), Knob("Steps a stage", "training steps before each round")] = 150
    share: Annotated[
        float, Range(0.05, 2.0), Knob("Growth", "neurons of a round, as a share of the first network's")
    ] = 0.35
    enough: Annotated[float, Range(0.0, 5.0), Knob("Good enough", "a task with no higher loss grows no more")] = 0.1
    size: Annotated[float, Range(0.25, 16.0), Knob("Fixed size", "of networks that do not grow, in first networks")] = (
        2.0
    )
    training: Annotated[int, Range(40, 50_000, log=True), Knob("Training examples", "of all tasks")] = 1258
    activation: Annotated[str, Choice(*ACTIVATIONS), Knob("Activation", advanced=True)] = "silu"
    batch: Annotated[int, Range(8, 4096, log=True), Knob("Batch", advanced=True)] = 64
    rate: Annotated[
        float, Range(1e-5, 0.3, log=True), Knob("Learning rate", "of Adam; falls to a tenth in a stage", advanced=True)
    ] = 0.01
    decay: Annotated[float, Range(0.0, 0.1), Knob("Weight decay", advanced=True)] = 1e-4
    eps: Annotated[
        float, Range(1e-4, 1.0, log=True), Knob("Step size", "how far an unlocked copy moves at once", advanced=True)
    ] = 0.1
    unit: Annotated[
        str, Choice("neurons", "parameters", "macs"), Knob("Budget", "what growth is a share of", advanced=True)
    ] = "neurons"
    cap: Annotated[int, Range(1, 512), Knob("Widest", "neurons a layer of one task may have", advanced=True)] = 256
    search_steps: Annotated[
        int, Range(1, 500, log=True), Knob("Search steps", "of optimising all candidates", advanced=True)
    ] = 40
    device: Annotated[str, Choice("auto", "cpu", "cuda"), Knob("Device", advanced=True)] = "auto"

    def run(self, start: Continual | None = None) -> Run[Continual]:
        """Return the run, from the first task or on from a snapshot.

        Raises `ValueError`, in one sentence, where data are missing or cannot be dealt like that.
        """
        stream = self._stream().to(best_device(self.device))
        return continual(stream, self._config(), generator_from(self.seed, "continual"), start)

    def view(self, snapshot: Continual) -> tuple[Scene, ...]:
        """Return the network by tasks, the accuracies, and the curves."""
        stream = self._stream()
        titles = stream.titles
        size = " x ".join(str(side) for side in stream.tasks[0].shape[1:])
        now = f"Task {snapshot.task + 1} of {len(titles)}: {titles[snapshot.task]}"
        network = tasks_network(stream, snapshot, titles, now, self.unit, self.method == "finetune", f"{size} pixels")
        matrix = (accuracy_matrix(snapshot, titles),) if snapshot.learnt else ()
        return network, *matrix, *tasks_curves(snapshot)

    def network_of(self, snapshot: Continual) -> tuple[nn.Module, tuple[Edit, ...]]:
        """Return the network of the task at hand; it has no edits of its own."""
        return live_network(self._stream(), snapshot), ()

    def baseline(self) -> "ContinualTasks | None":
        """Return a network of fixed size for each task; None where this is it."""
        return None if self.method == "separate" else replace(self, method="separate")

    def forecast(self) -> str:
        """Return the sizes and the device; a `ValueError` where a run cannot be."""
        stream = self._stream()
        where = "the GPU" if best_device(self.device).type != "cpu" else "the CPU"
        return (
            f"{len(stream.tasks)} tasks ({'; '.join(stream.titles)}), at most "
            f"{continual_steps(self._config(), len(stream.tasks)):,} steps, on {where}."
        )

    @classmethod
    def tiny(cls) -> Self:
        """Return two short tasks on few digits, with a round of growth in each."""
        return cls(tasks=2, rounds=1, stage=2, training=120, batch=30, enough=0.0, search_steps=4)

    def _stream(self) -> TaskStream:
        return _drawn(
            self.data, self.family, self.activation, self.training, self.batch, self.seed, self.tasks, self.order
        )

    def _config(self) -> ContinualConfig:
        search = FireflyConfig(splits=False, steps=self.search_steps, refined=max(1, self.search_steps // 4))
        return ContinualConfig(
            method=self.method, rounds=self.rounds, stage=self.stage, rate=self.rate, decay=self.decay, eps=self.eps,
            share=self.share, unit=self.unit, cap=self.cap, enough=self.enough, size=self.size, firefly=search,
        )  # fmt: skip


@lru_cache(maxsize=4)
def _drawn(
    data: str, family: str, activation: str, count: int, batch: int, seed: int, tasks: int, order: int
) -> TaskStream:
    return task_stream(data, family, activation, "average", count, batch, seed, tasks, order)
