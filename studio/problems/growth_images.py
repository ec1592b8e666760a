"""Data to classify by a network that grows while it learns: pictures, points of the plane and point clouds."""

__all__ = ["GROWTH_DATA", "PROBE", "GrowthImages", "growth_images", "normalised", "raw_images"]

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from studio.core.seeds import generator_from
from studio.nets.activations import Gaussian
from studio.nets.families import NETWORKS, POOLS, draw, family
from studio.nets.modes import evaluating
from studio.nets.spaces import Spaces, trace
from studio.problems.digits import DATA, labelled
from studio.problems.point_clouds import point_clouds

CLOUDS = "point-clouds"
GROWTH_DATA = (*DATA, CLOUDS)
# What a growing network starts from: as small as still learns something.
SEEDS = {
    "mlp": (3,), "vgg": (4, 4, 8, 8), "mobilenet": (6, 6, 8, 8, 12), "pointnet": (4, 8, 16, 8),
    "resnet": (4, 4, 6, 8),
}  # fmt: skip
# So many training examples score the candidates of a growth; convolutions take many positions from each.
PROBE = {"mlp": 2048, "vgg": 256, "mobilenet": 256, "pointnet": 256, "resnet": 256}
CHUNK = 500


@dataclass(frozen=True, eq=False)
class GrowthImages:
    """A training and a test set, and the family of networks that learns it; tensors stay where the inputs are.

    Inputs are pictures (b, channels, height, width), points of the plane (b, 2) or clouds (b, 3, points). `classes` are
    the names of the labels. `batch_size` is the most examples of a training batch.
    """

    inputs: Float[Tensor, "m *shape"]
    labels: Int[Tensor, " m"]
    test_inputs: Float[Tensor, "t *shape"]
    test_labels: Int[Tensor, " t"]
    classes: tuple[str, ...]
    family: str
    activation: str
    pool: str
    batch_size: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def examples(self) -> int:
        """Return how many training examples there are."""
        return len(self.inputs)

    @property
    def example(self) -> Float[Tensor, "2 *shape"]:
        """Return two inputs, enough to trace a network."""
        return self.inputs[:2]

    @property
    def test_words(self) -> str:
        """Return what `accuracy` is a share of, in words."""
        return "of the test set right"

    @property
    def start(self) -> tuple[int, ...]:
        """Return the widths of the seed network."""
        return SEEDS[self.family]

    def to(self, device: torch.device) -> "GrowthImages":
        """Return the same problem on a device."""
        names = ("inputs", "labels", "test_inputs", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def network(self, widths: Sequence[int] | None, generator: torch.Generator) -> nn.Module:
        """Return a freshly drawn network of these widths, or of the seed's (`start`)."""
        widths = self.start if widths is None else widths
        network = family(self.family, self.shape, widths, len(self.classes), self.activation, self.pool)
        return draw(network, generator).to(self.inputs)

    def spaces(self, network: nn.Module) -> Spaces:
        """Return the channel spaces of a network of this problem."""
        return trace(network, self.example, (Gaussian,))

    def batch(self, step: int) -> tuple[Float[Tensor, "b *shape"], Int[Tensor, " b"]]:
        """Return training batch number `step`, the same whenever and in whatever order it is asked for.

        An epoch is the whole set, shuffled by the seed and the epoch's number, in batches whose sizes differ by one at
        most: nothing is left out, and no epoch ends in a handful of examples, which would upset BatchNorm.
        """
        batches = -(-self.examples // self.batch_size)
        epoch, part = divmod(step, batches)
        order = torch.randperm(self.examples, generator=generator_from(self.seed, "epoch", epoch))
        return self._rows(order[part * self.examples // batches : (part + 1) * self.examples // batches])

    def probe(self, index: int) -> tuple[Float[Tensor, "b *shape"], Int[Tensor, " b"]]:
        """Return the training examples of probe number `index`, `PROBE` of them or half the set.

        Probes follow each other through the set in an order the seed draws, and begin again at its end: neighbouring
        ones share no example.
        """
        size = min(PROBE[self.family], self.examples // 2)
        order = torch.randperm(self.examples, generator=generator_from(self.seed, "probe"))
        return self._rows(order[(index * size + torch.arange(size)) % self.examples])

    def loss(self, outputs: Float[Tensor, "b k"], targets: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy."""
        return functional.cross_entropy(outputs, targets)

    def accuracy(self, network: nn.Module) -> float:
        """Return the share of the test set that a network (on the problem's device) gets right.

        It is asked in eval mode; every module's mode is put back.
        """
        with evaluating(network), torch.no_grad():
            chunks = zip(self.test_inputs.split(CHUNK), self.test_labels.split(CHUNK), strict=True)
            right = sum(int((network(inputs).argmax(dim=1) == labels).sum()) for inputs, labels in chunks)
        return right / len(self.test_labels)

    def _rows(self, rows: Int[Tensor, " b"]) -> tuple[Float[Tensor, "b *shape"], Int[Tensor, " b"]]:
        rows = rows.to(self.labels.device)
        return self.inputs[rows], self.labels[rows]


def growth_images(
    data: str, network: str, activation: str, pool: str, count: int, batch: int, seed: int
) -> GrowthImages:
    """Return the problem a seed draws: `count` training examples of a data set, for a family of networks.

    A set without a test part of its own is tested on what is not drawn. Pictures and points of the plane are shifted
    and scaled, channel by channel, so that the training set has mean 0 and variance 1; clouds come in the unit ball
    and stay as they are. Raises `ValueError` where the choices do not fit each other.
    """
    problem = raw_images(data, network, activation, pool, count, batch, seed)
    return problem if data == CLOUDS else normalised(problem, problem.inputs)


def raw_images(data: str, network: str, activation: str, pool: str, count: int, batch: int, seed: int) -> GrowthImages:
    """Return the problem `growth_images` returns, with the inputs as the data set has them: not shifted, not scaled.

    Raises `ValueError` where the choices do not fit each other.
    """
    _check(data, network, pool, batch)
    inputs, labels, test, classes = _clouds() if data == CLOUDS else _pictures(data)
    apart = test is not None
    most = len(inputs) if apart else len(inputs) - 1
    if not 2 <= count <= most:
        left = "" if apart else ", as the rest is the test set"
        raise ValueError(f"training must be between 2 and {most:,} for data {data!r}{left}, got {count:,}")
    order = torch.randperm(len(inputs), generator=generator_from(seed, "split"))
    test_inputs, test_labels = test if apart else (inputs[order[count:]], labels[order[count:]])
    problem = GrowthImages(
        inputs=inputs[order[:count]], labels=labels[order[:count]], test_inputs=test_inputs, test_labels=test_labels,
        classes=classes, family=network, activation=activation, pool=pool, batch_size=batch, seed=seed,
    )  # fmt: skip
    family(network, problem.shape, problem.start, len(classes), activation, pool)
    return problem


def normalised(problem: GrowthImages, train: Float[Tensor, "n *shape"]) -> GrowthImages:
    """Return a problem with its inputs in units of the standard deviation of `train` about its mean.

    Both are one number a channel; `train` need not be the problem's own training set.
    """
    return replace(
        problem, inputs=_normalised(problem.inputs, train), test_inputs=_normalised(problem.test_inputs, train)
    )


def _check(data: str, network: str, pool: str, batch: int) -> None:
    """Raise `ValueError` where a choice is unknown or the network cannot read the data."""
    if data not in GROWTH_DATA:
        raise ValueError(f"data must be one of {', '.join(GROWTH_DATA)}, got {data!r}")
    if network not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")
    if pool not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}: a step needs examples")
    if (data == CLOUDS) != (network == "pointnet"):
        remedy = (
            "pointnet" if data == CLOUDS else "mlp" if data in ("moons", "spirals") else "mlp, vgg, mobilenet or resnet"
        )
        raise ValueError(f"network {network!r} cannot read data {data!r}: choose the network {remedy}")
    if data in ("moons", "spirals") and network != "mlp":
        raise ValueError(f"network {network!r} needs pictures and data {data!r} are points: choose the network mlp")


def _clouds() -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], tuple[str, ...]]:
    found = point_clouds()
    return found.points, found.labels, (found.test_points, found.test_labels), found.classes


def _pictures(data: str) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None, tuple[str, ...]]:
    """Return inputs, labels, the test part where there is one, and the names of the classes."""
    found = labelled(data)
    if found.test_inputs is None or found.test_labels is None:
        return _laid_out(found.inputs, found.shape), found.labels, None, found.classes
    test = (_laid_out(found.test_inputs, found.shape), found.test_labels)
    return _laid_out(found.inputs, found.shape), found.labels, test, found.classes


def _laid_out(rows: Float[Tensor, "m f"], shape: tuple[int, ...]) -> Float[Tensor, "m *shape"]:
    """Return rows of values (height, width, channel) as pictures (channel, height, width); points stay points."""
    return rows.unflatten(1, shape).permute(0, 3, 1, 2).contiguous() if len(shape) == 3 else rows


def _normalised(inputs: Float[Tensor, "m *shape"], train: Float[Tensor, "n *shape"]) -> Float[Tensor, "m *shape"]:
    """Return inputs in units of the training set's standard deviation about its mean, a number a channel."""
    over = [axis for axis in range(train.ndim) if axis != 1]
    deviation, mean = torch.std_mean(train, dim=over, correction=0, keepdim=True)
    return (inputs - mean) / deviation.clamp_min(1e-6)
