"""Problems for growing networks: batches without a memory, probes that do not overlap, and choices that fit."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from studio.core.seeds import generator_from
from studio.problems.digits import labelled
from studio.problems.growth_images import GROWTH_DATA, PROBE, SEEDS, growth_images


def digits(network="mlp", count=500, batch=64, seed=0, pool="average"):
    return growth_images("digits", network, "silu", pool, count, batch, seed)


def marked(problem):
    """The problem with the number of every training example for its label, so that examples can be told apart."""
    object.__setattr__(problem, "labels", torch.arange(problem.examples))
    return problem


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_epoch_is_the_whole_set_in_batches_of_nearly_one_size():
    problem = marked(digits(batch=64))
    sizes, epochs = [], []
    for epoch in range(2):
        rows = [problem.batch(8 * epoch + part)[1] for part in range(8)]
        sizes += [len(part) for part in rows]
        epochs.append(torch.cat(rows))
        assert torch.equal(epochs[-1].sort().values, torch.arange(500))
    assert max(sizes) <= 64 and max(sizes) - min(sizes) <= 1
    assert not torch.equal(*epochs)


def test_batches_have_no_memory_and_belong_to_the_seed():
    problem, again, other = digits(), digits(), digits(seed=1)
    forwards = [problem.batch(step) for step in range(20)]
    backwards = [again.batch(step) for step in reversed(range(20))][::-1]
    assert all(same(one, two) for one, two in zip(forwards, backwards, strict=True))
    assert same(problem.batch(3), digits("vgg").batch(3)), "every family sees the same batches"
    assert not torch.equal(problem.batch(0)[0], other.batch(0)[0])
    inputs, labels = problem.batch(4)
    rows = [int((problem.inputs == one).flatten(1).all(dim=1).nonzero()[0]) for one in inputs]
    assert torch.equal(problem.labels[rows], labels), "labels stay with their inputs"
    assert len(digits(batch=9999).batch(7)[0]) == 500


@pytest.mark.parametrize("network, count, size", [("mlp", 1257, 628), ("vgg", 1257, 256), ("mlp", 301, 150)])
def test_neighbouring_probes_share_nothing(network, count, size):
    problem = marked(digits(network, count))
    probes = [problem.probe(index)[1].tolist() for index in range(8)]
    assert all(len(set(probe)) == size for probe in probes)
    assert all(not set(one) & set(two) for one, two in pairwise(probes))
    assert set().union(*probes) == set(range(count)), "they wrap around"
    assert same(problem.probe(1), marked(digits(network, count)).probe(1)) and size <= PROBE[network]


def test_training_and_test_set_are_apart_and_normalised_by_the_training_set():
    problem, data = digits(count=1000), labelled("digits")
    assert problem.shape == (1, 8, 8) and len(problem.classes) == 10 and problem.example.shape == (2, 1, 8, 8)
    assert problem.examples == 1000 and len(problem.test_inputs) == 797
    assert abs(problem.inputs.mean().item()) < 1e-5 and problem.inputs.std().item() == pytest.approx(1, abs=1e-3)
    assert 1e-5 < abs(problem.test_inputs.mean().item()) < 0.05
    both = torch.cat((problem.inputs, problem.test_inputs)).flatten(1)
    levels = ((both - both.min()) * 16 / (both.max() - both.min())).round() / 16
    assert torch.equal(levels.sort(dim=0).values, data.inputs.sort(dim=0).values)


def test_pictures_keep_their_layout(monkeypatch, tmp_path):
    colours = np.zeros((30, 2, 3, 3), np.float32)
    colours[:, 0, 2, 1] = np.arange(30)
    data = labelled("digits")
    odd = type(data)(
        torch.from_numpy(colours).flatten(1), torch.arange(30) % 2, ("a", "b"), (2, 3, 3), data.foreign, "none"
    )
    monkeypatch.setattr("studio.problems.growth_images.labelled", lambda name: odd)
    problem = growth_images("digits", "mlp", "silu", "average", 20, 8, 0)
    assert problem.shape == (3, 2, 3)
    lively = problem.inputs.std(dim=0) > 1e-3
    assert lively.nonzero().tolist() == [[1, 0, 2]] and torch.isfinite(problem.inputs).all()


@pytest.mark.parametrize("network", ["mlp", "vgg", "mobilenet"])
def test_every_family_learns_and_can_be_rebuilt(network):
    problem = digits(network, 1257, 128)
    seed = problem.network(None, generator_from(0, "net"))
    rebuilt = problem.network(SEEDS[network], generator_from(0, "net"))
    assert same(seed.state_dict().values(), rebuilt.state_dict().values())
    wider = problem.network([2 * width for width in SEEDS[network]], generator_from(0, "net"))
    optimiser = torch.optim.Adam(wider.parameters(), 0.02)
    before = problem.accuracy(wider)
    for step in range(40):
        inputs, labels = problem.batch(step)
        optimiser.zero_grad()
        problem.loss(wider(inputs), labels).backward()
        optimiser.step()
    assert before < 0.4 and problem.accuracy(wider) > 0.7


def test_accuracy_counts_in_eval_mode_and_restores_every_module():
    problem = digits("vgg", 500)
    network = problem.network(None, generator_from(0, "net"))
    network.get_submodule("conv1_norm").eval()
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    found = problem.accuracy(network)
    assert [module.training for module in network.modules()] == modes and any(modes) and not all(modes)
    assert same(state.values(), network.state_dict().values())
    network.eval()
    with torch.no_grad():
        right = (network(problem.test_inputs).argmax(dim=1) == problem.test_labels).float().mean().item()
    assert found == pytest.approx(right, abs=1e-6)

    class Failing(nn.Module):
        def forward(self, inputs):
            raise RuntimeError("broken")

    broken = Failing()
    with pytest.raises(RuntimeError, match="broken"):
        problem.accuracy(broken)
    assert broken.training


def test_loss_is_the_mean_cross_entropy():
    outputs, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 2
    assert digits().loss(outputs, targets).item() == pytest.approx(expected, rel=1e-6)


def test_points_of_the_plane_are_for_an_mlp():
    problem = growth_images("moons", "mlp", "tanh", "average", 400, 50, 0)
    assert problem.shape == (2,) and problem.network(None, generator_from(0, "net"))(problem.example).shape == (2, 2)
    assert torch.allclose(problem.inputs.mean(dim=0), torch.zeros(2), atol=1e-5)


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"data": "letters"}, "data must be one of digits, moons, .*, point-clouds, got 'letters'"),
        ({"network": "unet"}, "network must be one of mlp, vgg, mobilenet, pointnet, resnet"),
        ({"network": "pointnet"}, "'pointnet' cannot read data 'digits': choose the network mlp, vgg, mobile"),
        ({"data": "point-clouds"}, "'mlp' cannot read data 'point-clouds': choose the network pointnet"),
        ({"data": "spirals", "network": "vgg"}, "data 'spirals' are points: choose the network mlp"),
        ({"data": "spirals", "network": "pointnet"}, "choose the network mlp$"),
        ({"count": 1797}, "between 2 and 1,796 for data 'digits', as the rest is the test set, got 1,797"),
        ({"count": 1}, "between 2 and"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"pool": "sum"}, "pool must be one of"),
    ],
)
def test_choices_that_do_not_fit_are_refused_in_a_sentence(change, fault):
    asked = {"data": "digits", "network": "mlp", "activation": "silu", "pool": "max", "count": 100, "batch": 10}
    with pytest.raises(ValueError, match=fault):
        growth_images(**(asked | change), seed=0)


def test_the_data_sets_are_those_of_classification_and_the_clouds():
    assert GROWTH_DATA == ("digits", "moons", "spirals", "fashion-mnist", "cifar-10", "cifar-100", "point-clouds")


def test_a_problem_moves_as_one():
    moved = digits().to(torch.device("meta"))
    assert {moved.inputs.device.type, moved.test_labels.device.type, moved.batch(0)[0].device.type} == {"meta"}
    assert next(moved.network(None, generator_from(0, "net")).parameters()).device.type == "meta"
