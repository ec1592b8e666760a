"""What every study is: a frozen record of knobs that can run, be looked at, and be made tiny."""

__all__ = ["Study", "snapshot_type"]

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, get_args, get_type_hints

from torch import nn

from studio.core.controls import Knob, Range, Value, check
from studio.core.papers import Paper
from studio.core.runs import Run
from studio.core.snapshots import Snapshot
from studio.nets.surgery import Edit
from studio.scenes import Scene


@dataclass(frozen=True)
class Study(ABC):
    """Every knob of one experiment and its seed; it never holds weights or tensors.

    A subclass adds its fields (bounds in the annotation) and the class attributes below; studies with the same `shelf`
    stand together in the gallery, and `files` of at most `largest` bytes can be opened. Building one with a knob out of
    bounds raises a `ValueError` that names the knob.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    shelf: ClassVar[str] = "More"
    summary: ClassVar[str]
    papers: ClassVar[tuple[Paper, ...]]
    files: ClassVar[tuple[str, ...]] = ()
    largest: ClassVar[int] = 2 * 2**20

    seed: Annotated[int, Range(0, 2**31 - 1), Knob("Seed", "the same seed gives the same bytes")] = 7

    def __post_init__(self) -> None:
        check(self)

    @abstractmethod
    def run(self, start: Any = None) -> Run[Any]:
        """Return the run; `start`, where the method offers it, is a snapshot to go on from."""

    @abstractmethod
    def view(self, snapshot: Any) -> tuple[Scene, ...]:
        """Return what a snapshot looks like: pictures first, charts after."""

    @classmethod
    @abstractmethod
    def tiny(cls) -> Self:
        """Return a version of the study that ends within a second or two, for tests."""

    def forecast(self) -> str:
        """Return one sentence on what a run will need (memory, device), said before it starts."""
        return ""

    def network_of(self, snapshot: Any) -> tuple[nn.Module, tuple[Edit, ...]] | None:
        """Return the network that a snapshot holds and the edits that grew or pruned it; None where it holds none."""
        return None

    @classmethod
    def opened(cls, data: bytes) -> tuple[dict[str, Value], str]:
        """Return the knobs that a file of the user's sets, and a sentence on what was read; for studies with `files`.

        Raises `ValueError`, in one sentence, for a file that is none of them.
        """
        raise ValueError(f"{cls.title} opens no files")

    def baseline(self) -> "Study | None":
        """Return the plain version of this study to compare it with on the same seed, where there is one."""
        return None


def snapshot_type(study: type[Study]) -> type[Snapshot]:
    """Return the class of a study's snapshots, which the return annotation of its `run` names, as in `Run[Dream]`.

    Raises `ValueError` where it names none.
    """
    named = get_args(get_type_hints(study.run).get("return"))
    if not named or not (isinstance(named[0], type) and issubclass(named[0], Snapshot)):
        raise ValueError(f"{study.__name__}.run must say what it yields: annotate it with -> Run[YourSnapshot]")
    return named[0]
