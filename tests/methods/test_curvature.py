"""Splitting matrices: equal to brute force, foretelling what splits do, and both ends of their spectra."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import Net, conv, doubled, doubled_product, example, moved, perceptron, pictures, pooled, settled, squared
from torch import nn

from studio.methods.curvature import curvatures, dense, extremes, quadratic, second_derivative
from studio.nets.families import mlp, vgg
from studio.nets.spaces import trace
from studio.nets.surgery import widened
from studio.problems.digits import labelled

SMOOTH = ("perceptron", "pooled", "residual", "depthwise", "multiplier", "dense", "gated", "scaled")
ACTIVATIONS = ("silu", "gelu", "tanh", "softplus")


def relative(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9))


@pytest.mark.parametrize("name", SMOOTH)
def test_matrices_are_the_second_derivative_of_the_doubled_network(name):
    network, inputs, spaces = example(name)
    loss = squared(inputs)
    found = curvatures(network, spaces, inputs, loss)
    assert tuple(each.space for each in found) == spaces.splittable
    for each in found:
        wanted, between = doubled(network, spaces, each.space, inputs, loss)
        assert relative(dense(each), wanted) <= 1e-11 and between <= 1e-12
        assert each.size == tuple(wanted.shape[:2]) and not each.approximate
        assert float(each.loss) == pytest.approx(float(loss(network(inputs)).detach()), rel=1e-12)
        v = torch.randn(each.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        assert relative(each.product(v), doubled_product(network, spaces, each.space, inputs, loss, v)) <= 1e-11
        assert torch.allclose(quadratic(each, v), torch.einsum("nd,nde,ne->n", v, wanted, v))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_closed_form_product_and_vmap_of_hessians_agree():
    """A linear layer: the textbook formula, the products, and PyTorch's own Hessian of <g, sigma(theta)>."""
    network, inputs, spaces = example("perceptron")
    loss = squared(inputs)
    x = inputs.flatten(1)
    z = F.linear(x, network[1].weight, network[1].bias).detach()
    hidden = F.silu(z).requires_grad_()
    (g,) = torch.autograd.grad(loss(network[3:](hidden)), hidden)
    with_one = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    closed = torch.einsum("bn,bd,be->nde", g * second_derivative(F.silu, z), with_one, with_one)
    theta = torch.cat([network[1].weight, network[1].bias[:, None]], dim=1).detach()

    def aligned(row, slope):
        return (slope * F.silu(with_one @ row)).sum()

    hessians = torch.func.vmap(torch.func.hessian(aligned), in_dims=(0, 1))(theta, g)
    found = curvatures(network, spaces, inputs, loss)[0]
    assert found.size == (6, 193)
    assert float((dense(found) - closed).abs().max()) <= 1e-12 and float((hessians - closed).abs().max()) <= 1e-12
    assert float(closed.abs().max()) > 1e-3


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_closed_product_of_convolutions_is_that_of_two_derivatives():
    """Stride, padding, dilation, batch norm: the simple path against hessians taken patch by patch."""
    first = nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2)
    network = settled(nn.Sequential(first, nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(36, 4)))
    inputs = pictures(6)
    spaces, loss = trace(network, inputs), squared(inputs)
    hidden = network[:3](inputs).detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(network[3:](hidden)), hidden)
    patches = F.unfold(inputs, 3, dilation=2, padding=1, stride=2)
    patches = torch.cat([patches, torch.ones_like(patches[:, :1])], dim=1).transpose(1, 2)
    norm = network[1]

    def aligned(row, slope, weight, bias, mean, var):
        z = (patches @ row - mean) / (var + norm.eps).sqrt() * weight + bias
        return (slope * F.gelu(z)).sum()

    rows = torch.cat([first.weight.flatten(1), first.bias[:, None]], dim=1).detach()
    own = [norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var]
    hessians = torch.func.vmap(torch.func.hessian(aligned))(rows, g.flatten(2).transpose(0, 1), *own)
    found = curvatures(network, spaces, inputs, loss)[0]
    assert float((dense(found) - hessians).abs().max()) <= 1e-12 and float(hessians.abs().max()) > 1e-3


ODD = {
    "arguments of the activation": lambda s, h: F.softplus(h, beta=3.0),
    "a power": lambda s, h: h.pow(3) / 2,
    "in place": lambda s, h: F.silu(h, inplace=True).mul_(2.0),
    "a module in place": lambda s, h: s.act(s.own(s.act(h))),
    "viewed by size": lambda s, h: torch.tanh(h).view(h.size(0), -1, 8, 8),
    "twice viewed": lambda s, h: torch.tanh(s.own(F.silu(h)).view(h.size(0), h.size(1), -1)).unsqueeze(3),
    "instance norm alone": lambda s, h: s.norm(h)[:, :, ::2],
    "softmax over pixels": lambda s, h: F.softmax(h, dim=3)[:, :, :, ::2],
    "deviation": lambda s, h: h.std((2, 3), keepdim=True),
    "a square gate": lambda s, h: h * h.mean((2, 3), keepdim=True),
    "by itself": lambda s, h: h * h,
    "a quotient": lambda s, h: 1 / (2 + torch.sigmoid(h)),
    "batch statistics": lambda s, h: torch.tanh(s.batch(h)),
    "a parameter each": lambda s, h: F.softplus(h) ** s.power,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_ways_to_the_reader_are_followed_exactly(name):
    network = settled(
        Net(
            lambda self, x: self.head(ODD[name](self, self.first(x)).mean((2, 3))),
            first=conv(3, 4), act=nn.SiLU(inplace=True), own=conv(4, 4, groups=4), head=nn.Linear(4, 4),
            norm=nn.InstanceNorm2d(4, affine=True), batch=nn.Sequential(), power=nn.Parameter(torch.ones(4, 1, 1)),
        )
    )  # fmt: skip
    network.batch = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    inputs = pictures()
    spaces, loss = trace(network, inputs), squared(inputs)
    before = network(inputs)
    (found,) = curvatures(network, spaces, inputs, loss)
    wanted, between = doubled(network, spaces, 0, inputs, loss)
    assert relative(dense(found), wanted) <= 1e-10 and between <= 1e-10 and float(wanted.abs().max()) > 1e-4
    assert torch.equal(network(inputs), before)


def test_weights_that_are_not_trained_can_be_scored():
    network, inputs, spaces = example("dense")
    wanted = [dense(each) for each in curvatures(network, spaces, inputs, squared(inputs))]
    network.requires_grad_(False)
    found = [dense(each) for each in curvatures(network, spaces, inputs, squared(inputs))]
    assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))


def test_a_layer_called_twice_is_one_neuron():
    network = settled(
        Net(
            lambda self, x: self.head(torch.tanh(self.norm(self.one(x))).mean((2, 3)))
            - self.two(F.silu(self.one(x.flip(3)) ** 2).mean((2, 3))),
            one=conv(3, 4), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 4), two=nn.Linear(4, 4),
        )
    )  # fmt: skip
    inputs = pictures()
    spaces, loss = trace(network, inputs), squared(inputs)
    (found,) = curvatures(network, spaces, inputs, loss)
    assert relative(dense(found), doubled(network, spaces, 0, inputs, loss)[0]) <= 1e-11


def test_curvature_leaves_the_network_as_it_was():
    network, inputs, spaces = example("pooled")
    network.train()
    state = {key: part.clone() for key, part in network.state_dict().items()}
    for each in curvatures(network, spaces, inputs, squared(inputs)):
        extremes(each, torch.Generator().manual_seed(0))
    assert network.training and all(module.training for module in network.modules())
    assert all(torch.equal(part, state[key]) for key, part in network.state_dict().items())
    assert all(part.grad is None for part in network.parameters())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Hardtanh])
def test_kinks_are_called_approximate(activation):
    network, inputs = settled(perceptron(activation)), pictures()
    found = curvatures(network, trace(network, inputs), inputs, squared(inputs))
    assert [each.approximate for each in found] == [True, True]
    best = settled(pooled(nn.SiLU, nn.MaxPool2d))
    found = curvatures(best, trace(best, inputs), inputs, squared(inputs))
    assert [each.approximate for each in found] == [True, True, False]


def test_rectifiers_are_rounded_off_as_in_the_public_code():
    network, inputs = settled(perceptron(nn.ReLU)), pictures()
    spaces, loss = trace(network, inputs), squared(inputs)
    x = inputs.flatten(1)
    z = network[1](x).detach()
    hidden = F.relu(z).requires_grad_()
    (g,) = torch.autograd.grad(loss(network[3:](hidden)), hidden)
    bent = 3 * torch.sigmoid(3 * z) * torch.sigmoid(-3 * z)
    p = torch.cat([x, torch.ones(len(x), 1).double()], dim=1)
    wanted = torch.einsum("bn,bd,be->nde", g * bent, p, p)
    assert relative(dense(curvatures(network, spaces, inputs, loss)[0]), wanted) <= 1e-11


def test_linear_neurons_are_left_out_and_refused():
    """Their splitting matrix is exactly zero: S of a linear bottleneck, with and without batch norm and pooling."""
    network = settled(
        nn.Sequential(
            conv(3, 4), nn.BatchNorm2d(4), nn.AvgPool2d(2), conv(4, 4, groups=4), conv(4, 5), nn.Tanh(), nn.Flatten(),
            nn.Linear(80, 4),
        )
    )  # fmt: skip
    inputs = pictures()
    spaces, loss = trace(network, inputs), squared(inputs)
    assert spaces.splittable == (0, 1)
    assert [each.space for each in curvatures(network, spaces, inputs, loss)] == [1]
    with pytest.raises(
        ValueError, match="space 0 cannot be split: its neurons are linear, so their copies change noth"
    ):
        curvatures(network, spaces, inputs, loss, (0,))
    assert float(doubled(network, spaces, 0, inputs, loss)[0].abs().max()) <= 1e-12
    halved = settled(Net(lambda s, x: s.head(s.one(x.flatten(1)) / 2), one=nn.Linear(192, 3), head=nn.Linear(3, 4)))
    assert curvatures(halved, trace(halved, inputs), inputs, loss) == ()


def fitted(network, inputs, labels, steps=150):
    """A network trained a little, by Adam at 0.02."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in network.parameters():
            if part.dim() > 1:
                part.copy_(torch.randn(part.shape, generator=generator) * (2 / part[0].numel()) ** 0.5)
    network.double().train()
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def digits():
    data = labelled("digits")
    return data.inputs.double(), data.labels


def change_of_loss(network, spaces, ways, eps, inputs, loss):
    """What splitting all neurons of the spaces in `ways` does to the loss: half each, by +eps v and -eps v."""
    changes = {space: moved(spaces, space, [v, -v], (0.5, 0.5), eps) for space, v in ways.items()}
    grown, _ = widened(network, spaces, changes)
    with torch.no_grad():
        return float(loss(grown.eval()(inputs)) - loss(network(inputs)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_predictions_come_true_on_digits(digits, activation):
    """The change of the loss is eps^2 lambda / 2 (G5), and nothing of a lower order hides in it (G4)."""
    inputs, labels = digits
    network = fitted(mlp(64, (16,), 10, activation), inputs, labels)
    spaces = trace(network, inputs[:2])

    def loss(outputs):
        return F.cross_entropy(outputs, labels)

    (found,) = curvatures(network, spaces, inputs, loss)
    spectrum = extremes(found, torch.Generator().manual_seed(0))
    neuron = int(spectrum.low.argmin())
    way = torch.zeros(found.size, dtype=torch.float64)
    way[neuron] = spectrum.low_vectors[neuron]
    promised = 0.5 * float(spectrum.low[neuron])
    assert promised < -1e-4
    ratio = change_of_loss(network, spaces, {0: way}, 0.03, inputs, loss) / (0.03**2 * promised)
    assert 0.95 <= ratio <= 1.05
    sizes = [10 ** (-3 + 1.4771 * k / 5) for k in range(6)]
    points = [math.log(abs(change_of_loss(network, spaces, {0: way}, eps, inputs, loss))) for eps in sizes]
    middle = sum(map(math.log, sizes)) / 6
    slope = sum((math.log(e) - middle) * y for e, y in zip(sizes, points, strict=True))
    slope /= sum((math.log(e) - middle) ** 2 for e in sizes)
    assert 1.95 <= slope <= 2.05


def test_all_neurons_of_three_layers_at_once(digits):
    """Contributions add, across layers too (G6)."""
    inputs, labels = digits[0][:256].view(-1, 1, 8, 8), digits[1][:256]
    network = fitted(vgg((1, 8, 8), (4, 4, 4), 10, "silu", "average"), inputs, labels, 40)
    spaces = trace(network, inputs[:2])

    def loss(outputs):
        return F.cross_entropy(outputs, labels)

    ways, promised = {}, 0.0
    for each in curvatures(network, spaces, inputs, loss):
        spectrum = extremes(each, torch.Generator().manual_seed(0))
        ways[each.space] = spectrum.low_vectors
        promised += 0.5 * float(spectrum.low.sum())
    assert len(ways) == 3
    measured = change_of_loss(network, spaces, ways, 0.03, inputs, loss)
    assert 0.9 <= measured / (0.03**2 * promised) <= 1.1


def test_a_depthwise_filter_belongs_to_the_neuron():
    """S of the whole path foretells every channel; S right behind the first activation does not (G7)."""
    inputs = pictures(32)
    network = settled(
        nn.Sequential(
            conv(3, 8), nn.BatchNorm2d(8), nn.SiLU(), conv(8, 8, groups=8, stride=2), nn.BatchNorm2d(8), nn.SiLU(),
            conv(8, 16, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
        )
    )  # fmt: skip
    loss = squared(inputs)
    spaces = trace(network, inputs)
    found = curvatures(network, spaces, inputs, loss)[0]
    spectrum = extremes(found, torch.Generator().manual_seed(0))
    naive_network = Net(lambda self, x: self.rest(self.pass_(self.front(x))), front=network[:3], rest=network[3:],
                        pass_=nn.Conv2d(8, 8, 1, bias=False))  # fmt: skip
    with torch.no_grad():
        naive_network.pass_.weight.copy_(torch.eye(8).view(8, 8, 1, 1))
    naive_network.double().eval()
    naive = curvatures(naive_network, trace(naive_network, inputs), inputs, loss)[0]
    assert naive.size == found.size
    ratios, naively = [], []
    for neuron in range(8):
        way = torch.zeros(found.size, dtype=torch.float64)
        way[neuron] = spectrum.low_vectors[neuron]
        measured = change_of_loss(network, spaces, {0: way}, 0.01, inputs, loss) / 1e-4
        ratios.append(measured / (0.5 * float(spectrum.low[neuron])))
        naively.append(measured / (0.5 * float(quadratic(naive, way)[neuron])))
    assert all(0.9 <= ratio <= 1.1 for ratio in ratios)
    assert sum(not 0.9 <= ratio <= 1.1 for ratio in naively) >= 4 and not all(ratio > 0 for ratio in naively)


def test_lanczos_finds_both_ends_in_sixteen_products(digits):
    """G10: relative to the size of the matrix, and for what is not almost zero relative to itself."""
    inputs, labels = digits[0][:512].view(-1, 1, 8, 8), digits[1][:512]
    network = fitted(vgg((1, 8, 8), (8, 8, 8), 10, "silu", "average"), inputs, labels, 20)
    spaces = trace(network, inputs[:2])

    def loss(outputs):
        return F.cross_entropy(outputs, labels)

    for each in curvatures(network, spaces, inputs, loss)[1:]:
        assert each.size == (8, 72)
        products = []
        counted = type(each)(
            each.space, each.name, each.size, each.approximate, each.loss,
            lambda v, each=each, products=products: products.append(1) or each.product(v),
        )  # fmt: skip
        found = extremes(counted, torch.Generator().manual_seed(0), iterations=16, tolerance=0.0)
        assert len(products) == 16
        values, _ = torch.linalg.eigh(dense(each))
        size = values.abs().amax(dim=1)
        for end, mine, ways in ((0, found.low, found.low_vectors), (-1, found.high, found.high_vectors)):
            wanted = values[:, end]
            error = (mine - wanted).abs()
            assert float((error / size).max()) <= 0.01
            large = wanted.abs() > 0.05 * size
            assert float((error / wanted.abs())[large].max()) <= 0.01
            assert torch.allclose(ways.norm(dim=1), torch.ones(8).double())
            assert torch.allclose(quadratic(each, ways), mine, atol=1e-6 * float(size.max()), rtol=1e-3)
        usual = extremes(each, torch.Generator().manual_seed(1))
        assert float(((usual.low - values[:, 0]).abs() / size).max()) <= 5e-3
        assert float(((usual.high - values[:, -1]).abs() / size).max()) <= 5e-3


def test_spectra_of_zeros_and_of_few_directions_are_found():
    """Invariant subspaces: matrices of rank 0, 1 and 2 among full ones, large enough for the iteration."""
    d = 40
    basis = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    spectra = torch.zeros(5, d, dtype=torch.float64)
    spectra[1, 0], spectra[2, :2] = -3.0, torch.tensor([5.0, -2.0])
    spectra[3], spectra[4] = torch.linspace(-1, 1, d), 4.0
    matrices = torch.einsum("de,ne,fe->ndf", basis, spectra, basis)
    like = curvatures(*(lambda n, i, s: (n, s, i, squared(i)))(*example("perceptron")))[0]
    made = type(like)(0, "x", (5, d), False, like.loss, lambda v: torch.einsum("nde,ne->nd", matrices, v))
    found = extremes(made, torch.Generator().manual_seed(0))
    assert torch.allclose(found.low, torch.tensor([0, -3, -2, -1, 4.0]).double(), atol=5e-3)
    assert torch.allclose(found.high, torch.tensor([0, 0, 5, 1, 4.0]).double(), atol=5e-3)
    assert bool(torch.isfinite(found.low_vectors).all()) and bool(torch.isfinite(found.high_vectors).all())
    assert torch.allclose(quadratic(made, found.low_vectors), found.low, atol=1e-8)


def test_half_of_the_networks_precision_still_serves():
    network, inputs, spaces = example("dense")
    single = settled(type(network)(network.rule, **dict(network.named_children())).float(), dtype=torch.float32)
    exact = curvatures(single.double(), spaces, inputs, squared(inputs))
    wanted = [extremes(each, torch.Generator().manual_seed(0)) for each in exact]
    single.float()
    spaces = trace(single, inputs[:2].float())
    for each, known in zip(curvatures(single, spaces, inputs.float(), squared(inputs.float())), wanted, strict=True):
        found = extremes(each, torch.Generator().manual_seed(0))
        assert found.low.dtype == torch.float32 and float((found.low - known.low).abs().max()) <= 1e-3
