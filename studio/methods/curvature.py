"""Splitting matrices of all neurons of all layers at once: products with them, and both ends of their spectra.

Wu, Wang and Liu, "Splitting Steepest Descent for Growing Neural Architectures", NeurIPS 2019, arXiv 1910.02366.

    S_i = E[ sum_pos g_i d^2 sigma_i / dtheta_i^2 ]      g: the loss gradient at what the readers are given, frozen

Channels do not mix on the way to their readers, so the Hessian of <g, path(theta)> over a layer's parameters is block
diagonal with exactly these S_i: one product with it is one product for every neuron. Where the path is a layer, a batch
norm, an activation phi and linear steps, S v = a^2 E[sum g phi''(z) (p.v) p] needs no second differentiation; elsewhere
the gradient of the path is differentiated once more (backwards, which equals jvp-of-grad as S is symmetric, and reuses
the graph from product to product). The extreme eigenpairs come from Lanczos' iteration with full re-orthogonalisation,
all neurons of a layer together, until the residuals say that they are good. theta is a neuron's weights and its bias.

The public code takes S right behind the first activation, even where a depthwise filter follows; that S has the wrong
size and sometimes the wrong sign. Kinked activations (ReLU) are rounded off to softplus(3z)/3, as there: what comes out
ranks neurons and predicts no decrease, and `approximate` says so.
"""

__all__ = ["Curvature", "Spectrum", "curvatures", "dense", "extremes", "quadratic"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.methods.doubling import doubled_product
from studio.nets.paths import KINKED, Path, Probe, path_of, probe, rounded, walked
from studio.nets.spaces import Spaces

EXACT_BELOW = 33
TOLERANCE = 1e-3
ITERATIONS = 40


@dataclass(frozen=True, eq=False)
class Curvature:
    """The splitting matrices of one space's neurons, as a product: `product(V)` is S_i V_i for every row i of V.

    `size` is (neurons, parameters of one). `approximate`: the path has kinks. `loss` is the mean loss on the batch.
    """

    space: int
    name: str
    size: tuple[int, int]
    approximate: bool
    loss: Tensor
    product: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The smallest and the largest eigenvalue of each splitting matrix, with unit eigenvectors."""

    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]
    low_vectors: Float[Tensor, "n d"]
    high_vectors: Float[Tensor, "n d"]


def curvatures(
    network: nn.Module, spaces: Spaces, inputs: Tensor, loss: Callable[[Tensor], Tensor], only: tuple[int, ...] = ()
) -> tuple[Curvature, ...]:
    """Return the curvature of every space that can be split (or of those in `only`), from one pass over a batch.

    `loss` takes the network's outputs and returns the mean loss. Spaces of linear neurons are left out, unless they
    are asked for: then they raise `ValueError`. Spaces declared by hand have no path to follow: the network is doubled
    (see `doubling`). The network is read in evaluation mode and left as it was.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        if spaces.traced is None:
            return tuple(_doubled(network, spaces, space, inputs, loss) for space in only or spaces.splittable)
        paths = _paths(network, spaces, only)
        found = probe(network, paths, spaces, inputs, loss) if paths else None
        return tuple(_curvature(network, spaces, path, found) for path in paths if found is not None)
    finally:
        for module, training in modes.items():
            module.training = training


def _paths(network: nn.Module, spaces: Spaces, only: tuple[int, ...]) -> list[Path]:
    """Return the paths of the spaces whose neurons can be split; one asked for that cannot is a `ValueError`."""
    paths = []
    for space in only or spaces.splittable:
        try:
            paths.append(path_of(network, spaces, space))
        except ValueError:
            if only:
                raise
    return paths


def quadratic(curvature: Curvature, vectors: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return v_i . S_i v_i of every neuron."""
    return (vectors * curvature.product(vectors)).sum(dim=1)


def dense(curvature: Curvature) -> Float[Tensor, "n d d"]:
    """Return the splitting matrices themselves, by d products with unit vectors: for small d, and for tests."""
    n, d = curvature.size
    units = torch.eye(d, dtype=curvature.loss.dtype, device=curvature.loss.device)
    found = torch.stack([curvature.product(unit.expand(n, d)) for unit in units], dim=2)
    return (found + found.mT) / 2


def extremes(
    curvature: Curvature, generator: torch.Generator, iterations: int = ITERATIONS, tolerance: float = TOLERANCE
) -> Spectrum:
    """Return both ends of every neuron's spectrum.

    Small matrices are decomposed. For the others Lanczos' iteration goes on until no residual |S v - lambda v| is above
    `tolerance` times the larger end, or for `iterations` products.
    """
    n, d = curvature.size
    if d < EXACT_BELOW:
        values, vectors = torch.linalg.eigh(dense(curvature).double())
        return _as_spectrum(curvature, values, vectors, 0, d - 1)
    start = torch.randn(n, d, generator=generator, dtype=torch.float64).to(curvature.loss.device)
    basis = [start / start.norm(dim=1, keepdim=True)]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    values = vectors = start
    for step in range(min(iterations, d)):
        moved = curvature.product(basis[-1].to(curvature.loss.dtype)).double()
        diagonal.append((moved * basis[-1]).sum(dim=1))
        stacked = torch.stack(basis, dim=1)
        for _ in range(2):
            moved = moved - torch.einsum("nkd,nk->nd", stacked, torch.einsum("nkd,nd->nk", stacked, moved))
        beside.append(moved.norm(dim=1))
        last = step == min(iterations, d) - 1
        if last or step % 4 == 3:
            values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, beside))
            scale = values[:, [0, -1]].abs().amax(dim=1)
            residual = beside[-1][:, None] * vectors[:, -1, [0, -1]].abs()
            if last or bool((residual.amax(dim=1) <= tolerance * scale).all()):
                break
        basis.append(_next(moved, beside[-1], stacked, generator))
    ritz = torch.einsum("nkd,nkm->ndm", torch.stack(basis, dim=1), vectors[:, :, [0, -1]])
    ritz = ritz / ritz.norm(dim=1, keepdim=True)
    return _as_spectrum(curvature, values[:, [0, -1]], ritz, 0, 1)


def _next(moved: Tensor, length: Tensor, stacked: Tensor, generator: torch.Generator) -> Tensor:
    """Return the next basis vectors; where the space is used up, any direction orthogonal to it."""
    done = length <= 1e-13 * length.amax().clamp(min=1e-300)
    if bool(done.any()):
        fresh = torch.randn(moved.shape, generator=generator, dtype=torch.float64).to(moved.device)
        for _ in range(2):
            fresh = fresh - torch.einsum("nkd,nk->nd", stacked, torch.einsum("nkd,nd->nk", stacked, fresh))
        moved = torch.where(done[:, None], fresh, moved)
        length = torch.where(done, fresh.norm(dim=1), length)
    return moved / length[:, None]


def _tridiagonal(diagonal: list[Tensor], beside: list[Tensor]) -> Float[Tensor, "n k k"]:
    main = torch.diag_embed(torch.stack(diagonal, dim=1))
    if len(diagonal) == 1:
        return main
    side = torch.stack(beside[:-1], dim=1)
    return main + torch.diag_embed(side, offset=1) + torch.diag_embed(side, offset=-1)


def _as_spectrum(curvature: Curvature, values: Tensor, vectors: Tensor, low: int, high: int) -> Spectrum:
    dtype = curvature.loss.dtype
    return Spectrum(
        values[:, low].to(dtype), values[:, high].to(dtype), vectors[:, :, low].to(dtype), vectors[:, :, high].to(dtype)
    )


def _doubled(
    network: nn.Module, spaces: Spaces, space: int, inputs: Tensor, loss: Callable[[Tensor], Tensor]
) -> Curvature:
    product, size = doubled_product(network, spaces, space, inputs, loss)
    with torch.no_grad():
        value = loss(network(inputs))
    kinks = any(type(module).__name__.lower() in KINKED for module in network.modules())
    return Curvature(space, spaces[space].name, size, kinks, value, product)


def _curvature(network: nn.Module, spaces: Spaces, path: Path, found: Probe) -> Curvature:
    writer: Any = network.get_submodule(path.writer)
    d = writer.weight[0].numel() + (writer.bias is not None)
    make = _closed if path.bend is not None else _twice
    return Curvature(
        path.space, spaces[path.space].name, (len(writer.weight), d), bool(path.kinks), found.loss,
        make(network, path, found, writer),
    )  # fmt: skip


def _closed(network: nn.Module, path: Path, found: Probe, writer: Any) -> Callable[[Tensor], Tensor]:
    """Return the product of a simple path: the layer applied to V, weighed by g a^2 phi''(z), and applied backwards."""
    assert path.bend is not None
    (given,) = path.calls[0].all_input_nodes
    x, g = found.values[given], found.at_bends[path.bend]
    z = found.values[path.bend.all_input_nodes[0]]
    factor = second_derivative(rounded(network, path.bend), z).mul_(g)
    if path.norm is not None:
        norm: Any = network.get_submodule(str(path.norm.target))
        slope = (1.0 if norm.weight is None else norm.weight.detach()) / (norm.running_var + norm.eps).sqrt()
        factor.mul_((slope**2).view(1, -1, *[1] * (factor.dim() - 2)))
    width = writer.weight[0].numel()
    shape, bias = writer.weight.shape, writer.bias is not None
    if isinstance(writer, nn.Linear):
        flat, weigh = x.flatten(0, -2), factor.flatten(0, -2)

        def linear(v: Tensor) -> Tensor:
            u = weigh * (flat @ v[:, :width].T + (v[:, width:].T if bias else 0.0))
            return torch.cat([u.T @ flat, u.sum(dim=0)[:, None]], dim=1) if bias else u.T @ flat

        return linear
    settings = (writer.stride, writer.padding, writer.dilation)
    still = [0] * len(writer.stride)

    def convolved(v: Tensor) -> Tensor:
        kernel = v[:, :width].reshape(shape)
        shift = v[:, width].contiguous() if bias else None
        u = torch.ops.aten.convolution(x, kernel, shift, *settings, False, still, 1).mul_(factor)
        _, rows, sums = torch.ops.aten.convolution_backward(
            u, x, kernel, [len(kernel)] if bias else None, *settings, False, still, 1, [False, True, bias]
        )
        return torch.cat([rows.flatten(1), sums[:, None]], dim=1) if bias else rows.flatten(1)

    return convolved


def _twice(network: nn.Module, path: Path, found: Probe, writer: Any) -> Callable[[Tensor], Tensor]:
    """Return the product of any path: the gradient of <g, path(theta)>, differentiated once more along V."""
    with torch.enable_grad():
        weights = {key: each.detach().clone().requires_grad_() for key, each in writer.named_parameters()}
        values = walked(network, path, found, weights)
        aligned = sum((found.at_reads[pair] * values[pair[1]]).sum() for pair in path.reads)
        slopes = torch.autograd.grad(aligned, list(weights.values()), create_graph=True)  # type: ignore[arg-type]

    def product(v: Tensor) -> Tensor:
        width = weights["weight"][0].numel()
        along = [v[:, :width].reshape(weights["weight"].shape), *([v[:, width]] if "bias" in weights else [])]
        turned = torch.autograd.grad(slopes, list(weights.values()), along, retain_graph=True, materialize_grads=True)
        return torch.cat([part.flatten(1) if part.dim() > 1 else part[:, None] for part in turned], dim=1)

    return product


def second_derivative(activation: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return phi''(z), entry by entry, by differentiating the activation twice."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(at.clone()).sum(), at, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(z)
        (bend,) = torch.autograd.grad(slope.sum(), at, materialize_grads=True)
    return bend.detach()
