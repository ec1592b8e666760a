"""Whether pruning does what its gates did on many networks, and what becomes of broken and hostile files."""

__all__ = ["checked", "hostile"]

import copy
import importlib
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from studio.core.seeds import generator_from
from studio.methods.forward_selection import Stop, centred, select
from studio.methods.pruning_cut import gates_of, shrunk
from studio.nets.contributions import contributions, gated
from studio.nets.costs import macs
from studio.nets.network_files import read_network
from studio.nets.prefix import Prefix, first_call
from studio.nets.spaces import Spaces, trace
from studio.nets.torchvision_compat import import_torchvision
from studio.nets.trial import trial

MODELS = (
    "resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "squeezenet1_1", "efficientnet_b0", "vgg11_bn",
    "googlenet",
)  # fmt: skip


def checked(count: int = 200) -> dict[str, object]:
    """Return on how many random networks, and on which of torchvision's, pruning does what the gates did."""
    torch.set_num_threads(1)
    drawn, inputs = _of_tests("random_networks").drawn, _of_tests("networks").pictures(6)
    apart, prunable = [], 0
    for seed in range(count):
        network = drawn(seed, smooth=False)
        spaces = trace(network, inputs)
        prunable += bool(spaces.growable)
        apart.append(_apart(network, spaces, inputs, random.Random(seed).uniform(0.05, 1.0))[0])
    figures: dict[str, object] = {"networks_drawn": count, "networks_prunable": prunable}
    figures |= {
        "networks_checked": sum(each <= 1e-5 for each in apart),
        "networks_worst_difference": _short(max(apart)),
    }
    print(f"  {figures}", flush=True)
    for name in MODELS:
        found = _torchvision(name)
        figures |= {f"{key}_{name}": value for key, value in found.items()}
        print(f"  {name}: {found}", flush=True)
    return figures


def hostile() -> dict[str, object]:
    """Return what becomes of broken and hostile network files: read, and tried where they can be read."""
    broken: Any = _of_tests("nets.broken_networks")
    files, example = broken.broken_files(), torch.zeros(2, *broken.SHAPE)
    broken.MARKER.unlink(missing_ok=True)
    ends: dict[str, int] = {"refused_reading": 0, "refused_trying": 0, "accepted": 0, "crashed": 0}
    slowest, wordy = (0.0, ""), 0
    for name, data in files:
        begin = time.process_time()
        end, words = _opened(data, example)
        slowest = max(slowest, (time.process_time() - begin, name))
        ends[end] += 1
        wordy += end.startswith("refused") and ("\n" in words or not 10 < len(words) < 300)
    return {
        "hostile_files": len(files), **{f"hostile_{end}": number for end, number in ends.items()},
        "hostile_not_one_sentence": wordy, "hostile_ran_something": broken.MARKER.exists(),
        "hostile_slowest_seconds": round(slowest[0], 2), "hostile_slowest": slowest[1],
    }  # fmt: skip


def _torchvision(name: str) -> dict[str, object]:
    """Return what becomes of one of torchvision's networks with 60 % of its prunable channels, or why nothing does."""
    torch.manual_seed(0)
    builder = getattr(import_torchvision().models, name)
    network = _unsettled(builder(weights=None, init_weights=True) if name == "googlenet" else builder(weights=None))
    inputs = torch.randn(2, 3, 64, 64)
    try:
        spaces = trace(network, inputs)
        difference, exact, small = _apart(network, spaces, inputs, 0.6)
    except (ValueError, RuntimeError) as error:
        return {"reason": f"{type(error).__name__}: {error}"[:200]}
    inner = [space for space in spaces.spaces if "returns" not in space.frozen]
    return {
        "prunable_share": round(sum(spaces.widths) / sum(space.size for space in inner), 3),
        "difference": _short(difference), "difference_float64": _short(exact),
        "macs_before": macs(network, inputs), "macs_after": macs(small, inputs),
    }  # fmt: skip


def _unsettled(network: nn.Module) -> nn.Module:
    """Return a network whose batch norms are not the identity, in evaluation mode."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for name, part in module.state_dict().items():
                if part.is_floating_point():
                    part.uniform_(0.5, 1.5) if name in ("weight", "running_var") else part.uniform_(-0.5, 0.5)
    return network.eval()


@torch.no_grad()
def _apart(network: nn.Module, spaces: Spaces, inputs: Tensor, share: float) -> tuple[float, float, nn.Module]:
    """Return how far the pruned network is from the gated one, relative, in float32 and float64, and the pruned one."""
    prefix, gates, apart = Prefix(spaces, [inputs]), {}, []
    for space in spaces.growable:
        prefix.advance(network, first_call(spaces, spaces[space].writers))
        found = contributions(network, spaces, space, prefix, 4, generator_from(0, "positions", space))
        stop = Stop(max(1, round(share * len(found.members))), steps=2000)
        path = select(centred(found.gram.numpy()), "line_search", stop)
        gates[space] = gates_of(found.members, path.weights())
    small = network
    for dtype in (torch.float64, torch.float32):
        whole, given = copy.deepcopy(network).to(dtype), inputs.to(dtype)
        small = shrunk(whole, spaces, gates)[0].eval()
        with gated(whole, spaces, gates):
            wanted = whole(given)
        apart.append(float((small(given) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30)))
    return apart[1], apart[0], small


def _opened(data: bytes, example: Tensor) -> tuple[str, str]:
    """Return what became of a file, and the words with which it was refused."""
    stage = "refused_reading"
    try:
        network = read_network(data, "dropped.safetensors")[0]
        stage = "refused_trying"
        trial(network, example, 4)
    except ValueError as error:
        return stage, str(error)
    except Exception as error:
        return "crashed", repr(error)
    return "accepted", ""


def _of_tests(name: str) -> Any:
    """Return a module of the tests' helpers."""
    folder = str(Path(__file__).resolve().parent.parent / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def _short(value: float) -> float:
    return float(f"{value:.2g}")
