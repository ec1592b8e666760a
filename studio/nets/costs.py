"""What a network costs, and what one more channel would: counted on the network, never by a formula of widths."""

__all__ = [
    "COUNTERS", "energy", "latency", "layer_macs", "macs", "marginal_costs", "parameters", "shrunken",
]  # fmt: skip

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from studio.nets.spaces import Spaces
from studio.nets.surgery import keep, widened

# What fetching one weight costs in multiply-accumulates: an assumption of ours, to be replaced by one's own hardware's.
FETCH = 100.0
Counter = Callable[[nn.Module, Tensor], float]


def macs(network: nn.Module, example: Tensor) -> int:
    """Return the multiply-accumulates of one example (of layers and products; additions and activations are free).

    Counted by PyTorch's own counter on tensors without contents, so that large networks cost nothing to count; a
    network whose way depends on its data is run.
    """
    ghost = copy.deepcopy(network).to("meta").eval()
    try:
        return _counted(ghost, torch.empty(example.shape, dtype=example.dtype, device="meta"))
    except RuntimeError:
        return _counted(copy.deepcopy(network).eval(), example)


@torch.no_grad()
def _counted(network: nn.Module, example: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(example)
    return counter.get_total_flops() // (2 * len(example))


def parameters(network: nn.Module, example: Tensor | None = None) -> int:
    """Return how many parameters a network has."""
    return sum(parameter.numel() for parameter in network.parameters())


def energy(network: nn.Module, example: Tensor) -> float:
    """Return the energy of one example in units of a multiply-accumulate, with every weight fetched once.

    A fetch is taken to cost `FETCH` units, which is our assumption and not the paper's.
    """
    return macs(network, example) + FETCH * parameters(network)


def latency(network: nn.Module, example: Tensor, repeats: int = 20) -> float:
    """Return the median seconds of one pass forward over the example batch: the only figure here that is not exact."""
    times, network = [], copy.deepcopy(network).eval()
    with torch.no_grad():
        for _ in range(repeats):
            begin = time.perf_counter()
            network(example)
            if example.device.type != "cpu":
                torch.accelerator.synchronize()
            times.append(time.perf_counter() - begin)
    return sorted(times)[repeats // 2]


COUNTERS: Mapping[str, Counter] = {"macs": macs, "parameters": parameters, "energy": energy}


def marginal_costs(
    network: nn.Module, spaces: Spaces, example: Tensor, counter: Counter = macs, more: int = 1
) -> dict[int, float]:
    """Return what one more channel of each growable space costs: a dry widening by `more` blocks, counted and divided.

    For `latency` take `more` of eight or so: a single channel is lost in the noise. A space in groups grows by one
    channel a group, and the cost is that of one of them. When neighbours grow in the same round the costs change (they
    are products of widths): count again.
    """
    before, costs = counter(network, example), {}
    for space in spaces.growable:
        size, groups = spaces[space].size, spaces[space].groups
        block = size // groups
        source = [
            start + (slot if slot < block else 0) for start in range(0, size, block) for slot in range(block + more)
        ]
        change = replace(keep(source), coef=torch.ones(len(source), dtype=torch.float64))
        grown, _ = widened(network, spaces, {space: change})
        costs[space] = (counter(grown, example) - before) / (groups * more)
    return costs


def layer_macs(network: nn.Module, example: Tensor) -> dict[str, float]:
    """Return the multiply-accumulates of one example in each layer that has a weight, by the layer's name.

    With `shrunken` the cost of any widths follows without building a network.
    """
    found: dict[str, float] = {}

    def note(name: str, module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        weight: Tensor = module.weight  # type: ignore[assignment]
        plain = isinstance(module, nn.Linear)
        over = given[0] if getattr(module, "transposed", False) else made
        places = (over.numel() // over.shape[-1 if plain else 1]) / len(example)
        found[name] = found.get(name, 0.0) + weight.numel() * places

    ghost = copy.deepcopy(network).to("meta").eval()
    for name, module in ghost.named_modules():
        if isinstance(module, nn.Linear) or hasattr(module, "transposed"):
            module.register_forward_hook(partial(note, name))
    with torch.no_grad():
        ghost(torch.empty(example.shape, dtype=example.dtype, device="meta"))
    return found


def shrunken(layers: Mapping[str, float], spaces: Spaces, widths: Mapping[int, int]) -> float:
    """Return the multiply-accumulates of a network whose spaces have these widths, from those of its layers.

    A layer's are a product over the axes of its weight, so that each shrinks by the share of its channels that is left.
    """
    shares = dict.fromkeys(layers, 1.0)
    for axis in spaces.axes:
        if axis.tensor.endswith("weight") and axis.module in shares:
            old = sum(spaces[part.space].size * part.expansion for part in axis.layout)
            new = sum(widths.get(part.space, spaces[part.space].size) * part.expansion for part in axis.layout)
            shares[axis.module] *= new / old
    return sum(cost * shares[name] for name, cost in layers.items())
