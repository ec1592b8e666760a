"""Seeds, devices, papers and snapshot sizes."""

import dataclasses

import pytest
import torch

from studio.core.devices import best_device, free_memory
from studio.core.papers import FUSEDREAM, HARMLESS, bibtex
from studio.core.seeds import generator_from
from studio.core.snapshots import Snapshot, nbytes


def draw(*path):
    return torch.randn(4, generator=generator_from(*path)).tolist()


def test_a_seed_and_a_path_fix_the_draws():
    assert draw(7, "start") == draw(7, "start")
    assert len({tuple(draw(*path)) for path in [(7, "start"), (8, "start"), (7, "noise"), (7,), (7, "start", 0)]}) == 5


def test_best_device_refuses_what_is_not_there():
    assert best_device("cpu").type == "cpu"
    assert best_device().type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="must be auto, cpu or cuda"):
        best_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA GPU"):
            best_device("cuda")


def test_free_memory_is_plausible():
    assert 2**26 < free_memory(torch.device("cpu")) < 2**44


@pytest.mark.parametrize("paper", [FUSEDREAM, HARMLESS])
def test_bibtex_is_balanced(paper):
    entry = bibtex(paper)
    assert entry.count("{") == entry.count("}") and paper.arxiv in entry and paper.link.endswith(paper.arxiv)


def test_nbytes_counts_arrays_and_snapshots_are_frozen():
    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Two(Snapshot):
        a: torch.Tensor
        b: tuple[torch.Tensor, ...]

    two = Two(step=0, total=1, phase="x", a=torch.zeros(10), b=(torch.zeros(5, dtype=torch.float64),))
    assert nbytes(two) == 80
    with pytest.raises(dataclasses.FrozenInstanceError):
        two.step = 3
