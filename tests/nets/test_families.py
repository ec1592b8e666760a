"""Plain networks from widths: traceable, drawn from a generator alone, and laid out in the order they say."""

import pytest
import torch
from torch import fx, nn

from studio.core.seeds import generator_from
from studio.nets.activations import ACTIVATIONS, SMOOTH, Gaussian
from studio.nets.families import FAMILIES, draw, family, mlp

SHAPES = {"mlp": (2, 6, 5), "vgg": (2, 8, 8), "mobilenet": (2, 8, 8), "pointnet": (3, 20)}
WIDTHS = {"mlp": (5, 3), "vgg": (3, 4, 5, 6, 7), "mobilenet": (3, 4, 5, 6), "pointnet": (3, 4, 6, 5)}


def made(name, activation="silu", pool="average", seed=0, widths=None):
    network = family(name, SHAPES[name], widths or WIDTHS[name], 4, activation, pool)
    return draw(network, generator_from(seed, name))


def inputs_of(name, count=3):
    return torch.randn(count, *SHAPES[name], generator=generator_from(1, "inputs"))


class Whole(fx.Tracer):
    """A tracer to which the studio's own activations are single nodes too."""

    def is_leaf_module(self, m, module_qualified_name):
        return isinstance(m, Gaussian) or super().is_leaf_module(m, module_qualified_name)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize("activation", ["silu", "gaussian"])
def test_a_network_is_traced_as_it_stands(name, pool, activation):
    network, inputs = made(name, activation, pool).eval(), inputs_of(name)
    outputs = network(inputs)
    assert outputs.shape == (3, 4) and outputs.std() > 0
    for graph in (fx.symbolic_trace(network).graph, Whole().trace(network)):
        assert torch.equal(fx.GraphModule(network, graph)(inputs), outputs)
    kinds = {node.op for node in Whole().trace(network).nodes}
    assert kinds == {"placeholder", "call_module", "output"}


@pytest.mark.parametrize("name", FAMILIES)
def test_widths_stand_in_the_order_of_execution(name):
    network, seen = made(name), []
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and getattr(module, "groups", 1) == 1:
            module.register_forward_hook(lambda layer, _, outputs: seen.append(outputs.shape[1]))
    network(inputs_of(name))
    assert tuple(seen) == (*WIDTHS[name], 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_draw_is_the_generator_s_and_leaves_the_world_s_alone(name):
    before = torch.get_rng_state()
    one, same, other = made(name), made(name), made(name, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.get_submodule("head").weight, other.get_submodule("head").weight)
    double = draw(family(name, SHAPES[name], WIDTHS[name], 4).double(), generator_from(0, name))
    pairs = zip(one.parameters(), double.parameters(), strict=True)
    assert all(b.dtype == torch.float64 and torch.equal(a, b.float()) for a, b in pairs)


def test_weights_have_he_s_variance_and_biases_are_zero():
    wide = draw(family("vgg", (40, 8, 8), (60, 50), 30), generator_from(0, "he"))
    assert wide.get_submodule("conv1").weight.var().item() == pytest.approx(2 / 360, rel=0.05)
    assert wide.get_submodule("head").weight.var().item() == pytest.approx(2 / 50, rel=0.1)
    assert not wide.get_submodule("head").bias.any()
    narrow = draw(family("mobilenet", (1, 8, 8), (600, 3), 3), generator_from(0, "he"))
    assert narrow.get_submodule("depthwise1").weight.var().item() == pytest.approx(2 / 9, rel=0.1)


def test_undrawn_is_blank_and_a_second_draw_forgets_the_first():
    blank = family("vgg", (1, 8, 8), (3, 4), 5)
    assert not blank(torch.randn(2, 1, 8, 8, generator=generator_from(0, "x"))).any()
    assert (blank.get_submodule("conv1_norm").running_var != 1).any(), "the pass above moved the statistics"
    again = draw(draw(blank, generator_from(0, "a")), generator_from(0, "b")).state_dict()
    fresh = draw(family("vgg", (1, 8, 8), (3, 4), 5), generator_from(0, "b")).state_dict()
    assert all(torch.equal(again[name], fresh[name]) for name in fresh)
    with pytest.raises(ValueError, match="0 is a PReLU: only Linear, Conv and BatchNorm"):
        draw(nn.Sequential(nn.PReLU()), generator_from(0, "a"))


def sides(name, side, widths):
    network = draw(family(name, (1, side, side), widths, 3), generator_from(0, "sides"))
    seen = []
    network.get_submodule("mean").register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-1]))
    network(torch.zeros(2, 1, side, side))
    return seen[0]


@pytest.mark.parametrize("side, vgg, mobilenet", [(8, 4, 4), (16, 4, 4), (28, 7, 7), (5, 5, 5), (7, 7, 4)])
def test_pictures_are_halved_while_four_pixels_are_left(side, vgg, mobilenet):
    assert sides("vgg", side, (2, 2, 2, 2)) == vgg
    assert sides("mobilenet", side, (2, 2, 2, 2, 2)) == mobilenet
    assert sides("vgg", 28, (2,)) == 28 and sides("mobilenet", 28, (2, 2)) == 28


def test_max_and_average_differ_and_points_have_no_order():
    inputs = inputs_of("pointnet")
    for pool in ("average", "max"):
        network = made("pointnet", pool=pool).eval()
        turned = network(inputs[:, :, torch.randperm(20, generator=generator_from(0, "order"))])
        assert torch.allclose(turned, network(inputs), atol=1e-5)
    assert isinstance(made("vgg", pool="max").get_submodule("pool2"), nn.MaxPool2d)
    assert isinstance(made("vgg").get_submodule("pool2"), nn.AvgPool2d)
    peak = inputs.clone()
    peak[:, :, 1:] = peak[:, :, :1]
    single, both = made("pointnet", pool="max").eval(), made("pointnet", pool="average").eval()
    assert torch.allclose(single(peak), both(peak), atol=1e-5) and not torch.allclose(single(inputs), both(inputs))


def test_a_sum_of_bumps_is_its_formula():
    network = mlp(1, (2,), 1, "gaussian", last_bias=False)
    values = {"layer1.weight": [[1.0], [2.0]], "layer1.bias": [0.5, -1.0], "head.weight": [[3.0, -2.0]]}
    network.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    x = torch.linspace(-2, 2, 7)[:, None]
    bumps = 3 * (-((x + 0.5) ** 2) / 2).exp() - 2 * (-((2 * x - 1) ** 2) / 2).exp()
    assert torch.allclose(network(x), bumps)


def test_smooth_activations_have_a_second_derivative():
    assert SMOOTH == ("silu", "gelu", "tanh", "softplus", "gaussian")
    z = torch.linspace(-1.05, 1.05, 8, dtype=torch.float64, requires_grad=True)
    for name, maker in ACTIVATIONS.items():
        (first,) = torch.autograd.grad(maker()(z).sum(), z, create_graph=True)
        bent = first.requires_grad and bool(torch.autograd.grad(first.sum(), z, allow_unused=True)[0].any())
        assert bent == (name in SMOOTH), name


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"name": "unet"}, "family must be one of mlp, vgg, mobilenet, pointnet, resnet, got 'unet'"),
        ({"widths": ()}, "widths of the family vgg must be at least 1, got 0"),
        ({"widths": (3, 0)}, r"between 1 and 4,096, got \(3, 0\)"),
        ({"widths": (3, 4097)}, "between 1 and 4,096"),
        ({"name": "mobilenet", "widths": (3,)}, "mobilenet must be at least 2, got 1"),
        ({"activation": "sine"}, "activation must be one of silu, gelu"),
        ({"pool": "sum"}, "pool must be one of average, max, got 'sum'"),
        ({"shape": (3, 20)}, "a vgg takes pictures of shape"),
        ({"name": "pointnet"}, r"clouds of shape \(3, points\), got \(1, 8, 8\): choose another family"),
        ({"name": "pointnet", "shape": (3, 9), "widths": (4,)}, "pointnet must be at least 2, got 1"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(change, fault):
    asked = {"name": "vgg", "shape": (1, 8, 8), "widths": (3, 4), "outputs": 5, "activation": "silu", "pool": "max"}
    with pytest.raises(ValueError, match=fault):
        family(**(asked | change))
