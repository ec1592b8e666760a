"""Streams of tasks: every class in one task, every example in its own, and nothing known of later data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from studio.core.seeds import generator_from
from studio.problems.digits import labelled
from studio.problems.growth_images import raw_images
from studio.problems.task_streams import STREAMS, task_stream

RAW = "studio.problems.growth_images.labelled"


def digits(family="mlp", count=600, seed=0, tasks=5, order=0):
    return task_stream("digits", family, "silu", "average", count, 32, seed, tasks, order)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def toys(classes, apart=True, missing=()):
    """Colour pictures of 4 x 4 whose channels have a mean and a spread of their own in every class."""
    draw = np.random.default_rng(0)
    labels = np.arange(20 * classes) % classes
    noise = draw.normal(size=(len(labels), 4, 4, 3))
    pixels = noise * (1 + labels[:, None, None, None]) * np.array([1, 2, 5]) + labels[:, None, None, None]
    inputs, labels = torch.tensor(pixels, dtype=torch.float32).flatten(1), torch.from_numpy(labels)
    tested = ~torch.isin(labels, torch.tensor(missing, dtype=torch.int64))
    return replace(
        labelled("digits"), inputs=inputs, labels=labels, classes=tuple("ABCDEFGHIJKL"[:classes]), shape=(4, 4, 3),
        test_inputs=inputs[tested] + 1 if apart else None, test_labels=labels[tested] if apart else None,
    )  # fmt: skip


@pytest.mark.parametrize("tasks, order", [(5, 0), (2, 0), (5, 3), (10, 3)])
def test_every_example_is_in_the_task_of_its_class(tasks, order):
    stream, whole = digits(tasks=tasks, order=order), raw_images("digits", "mlp", "silu", "average", 600, 32, 0)
    assert stream.name == "digits" and len(stream.tasks) == tasks
    assert sorted(name for task in stream.tasks for name in task.classes) == list("0123456789")
    assert sum(task.examples for task in stream.tasks) == 600
    assert sum(len(task.test_labels) for task in stream.tasks) == 1797 - 600
    first = [int(name) for name in stream.tasks[0].classes]
    seen = whole.inputs[torch.isin(whole.labels, torch.tensor(first))].double().numpy()
    for task in stream.tasks:
        assert len(task.classes) == 10 // tasks
        for label, name in enumerate(task.classes):
            for ours, theirs in (
                (task.inputs[task.labels == label], whole.inputs[whole.labels == int(name)]),
                (task.test_inputs[task.test_labels == label], whole.test_inputs[whole.test_labels == int(name)]),
            ):
                expected = (theirs.double().numpy() - seen.mean()) / seen.std()
                assert len(ours) and np.allclose(ours.numpy(), expected, atol=1e-5)
        assert int(task.labels.min()) >= 0 and int(task.labels.max()) < len(task.classes)


def test_only_the_first_task_says_what_is_normal(monkeypatch):
    monkeypatch.setattr(RAW, lambda name: toys(4))
    first, second = task_stream("digits", "vgg", "silu", "average", 60, 8, 0, 2).tasks
    deviation, mean = torch.std_mean(first.inputs, dim=(0, 2, 3), correction=0)
    assert torch.allclose(mean, torch.zeros(3), atol=1e-5) and torch.allclose(deviation, torch.ones(3), atol=1e-5)
    assert (second.inputs.std(dim=(0, 2, 3)) > 1.5).all(), "later classes are spread wider, and stay so"
    raw = raw_images("digits", "vgg", "silu", "average", 60, 8, 0)
    for channel in range(3):
        seen = raw.inputs[raw.labels < 2][:, channel].double().numpy()
        expected = (raw.test_inputs[raw.test_labels >= 2][:, channel].double().numpy() - seen.mean()) / seen.std()
        assert np.allclose(second.test_inputs[:, channel].numpy(), expected, atol=1e-4)


def test_the_order_of_the_classes_is_natural_or_drawn():
    natural = [task.classes for task in digits().tasks]
    assert natural == [("0", "1"), ("2", "3"), ("4", "5"), ("6", "7"), ("8", "9")]
    drawn = [task.classes for task in digits(order=3).tasks]
    assert drawn == [task.classes for task in digits(order=3, seed=5).tasks], "the seed draws examples, not classes"
    expected = torch.randperm(10, generator=generator_from(3, "classes")).tolist()
    assert [int(name) for task in drawn for name in task] == expected
    assert len({natural[0], drawn[0], digits(order=4).tasks[0].classes, digits(order=5).tasks[0].classes}) == 4


def test_the_seed_draws_the_examples_and_every_task_has_batches_of_its_own():
    one, again, other = digits(), digits(), digits(seed=1)
    for task, twin, stranger in zip(one.tasks, again.tasks, other.tasks, strict=True):
        assert same(task.batch(3), twin.batch(3)) and same(task.probe(1), twin.probe(1))
        assert task.examples != stranger.examples or not torch.equal(task.inputs, stranger.inputs)
        assert len(task.batch(0)[0]) <= 32 == task.batch_size
    seeds = [task.seed for seed in range(4) for task in digits(seed=seed, tasks=10).tasks]
    assert len(set(seeds)) == 40


def test_titles_say_what_is_told_apart(monkeypatch):
    assert digits().titles == ("0 and 1", "2 and 3", "4 and 5", "6 and 7", "8 and 9")
    assert digits(tasks=2).titles == ("0, 1, ... (5 classes)", "5, 6, ... (5 classes)")
    assert digits(tasks=10).titles[3] == "3"
    monkeypatch.setattr(RAW, lambda name: toys(12))
    titles = {tasks: task_stream("digits", "mlp", "silu", "average", 200, 8, 0, tasks).titles for tasks in (3, 4)}
    assert titles[4] == ("A, B and C", "D, E and F", "G, H and I", "J, K and L")
    assert titles[3][1] == "E, F, ... (4 classes)"


@pytest.mark.parametrize("family", ["mlp", "vgg", "mobilenet"])
def test_every_task_has_networks_of_its_own_size(family):
    for task in digits(family, tasks=2).tasks:
        network = task.network(None, generator_from(0, "net"))
        assert network(task.example).shape == (2, 5) and 0 <= task.accuracy(network) < 0.7


def test_a_task_can_be_learnt():
    task = digits().tasks[2]
    network = task.network(None, generator_from(0, "net"))
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for step in range(40):
        inputs, labels = task.batch(step)
        optimiser.zero_grad()
        task.loss(network(inputs), labels).backward()
        optimiser.step()
    assert task.accuracy(network) > 0.95


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"data": "moons"}, "data must be one of digits, fashion-mnist, cifar-10, cifar-100, got 'moons'"),
        ({"data": "point-clouds"}, "data must be one of digits, .*, got 'point-clouds'"),
        ({"tasks": 1}, "tasks must divide the 10 classes of data 'digits' evenly, got 1: take 2, 5 or 10"),
        ({"tasks": 0}, "tasks must divide"),
        ({"tasks": -5}, "tasks must divide"),
        ({"tasks": 3}, "tasks must divide"),
        ({"tasks": 20}, "tasks must divide"),
        ({"count": 2}, r"training leaves task \d \(\d and \d\) with [01] of the 2 examples .*: take more training"),
        ({"count": 1796}, r"training leaves task \d \(\d and \d\) with nothing to be tested on: take fewer"),
        ({"count": 1797}, "training must be between 2 and 1,796"),
        ({"family": "pointnet"}, "'pointnet' cannot read data 'digits': choose the network mlp, vgg, mobile"),
        ({"family": "unet"}, "network must be one of mlp, vgg"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"pool": "sum"}, "pool must be one of"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_choices_that_do_not_fit_are_refused_in_a_sentence(change, fault):
    asked = {"data": "digits", "family": "mlp", "activation": "silu", "pool": "max", "count": 100, "batch": 10}
    with pytest.raises(ValueError, match=fault):
        task_stream(**(asked | change), seed=0)


def test_a_task_needs_two_examples(monkeypatch):
    toy = toys(4)
    rows = torch.cat([(toy.labels < 2).nonzero()[:, 0], (toy.labels >= 2).nonzero()[:2, 0]])
    for kept, fits in ((rows, True), (rows[:-1], False)):
        few = replace(toy, inputs=toy.inputs[kept], labels=toy.labels[kept])
        monkeypatch.setattr(RAW, lambda name, few=few: few)
        if fits:
            assert task_stream("digits", "mlp", "silu", "max", len(kept), 8, 0, 2).tasks[1].examples == 2
        else:
            with pytest.raises(ValueError, match=r"task 2 \(C and D\) with 1 of the 2 examples"):
                task_stream("digits", "mlp", "silu", "max", len(kept), 8, 0, 2)


def test_a_test_part_without_a_task_s_classes_is_refused(monkeypatch):
    monkeypatch.setattr(RAW, lambda name: toys(4, missing=(2,)))
    assert [len(task.test_labels) for task in task_stream("digits", "mlp", "silu", "max", 60, 8, 0, 2).tasks] == [
        40,
        20,
    ]
    monkeypatch.setattr(RAW, lambda name: toys(4, missing=(2, 3)))
    with pytest.raises(ValueError, match=r"task 2 \(C and D\) with nothing to be tested on"):
        task_stream("digits", "mlp", "silu", "max", 60, 8, 0, 2)


@pytest.mark.parametrize("data", [name for name in STREAMS if name != "digits"])
def test_a_missing_folder_is_a_sentence(data, monkeypatch):
    monkeypatch.delenv("STUDIO_DATA", raising=False)
    labelled.cache_clear()
    with pytest.raises(ValueError, match=f"data '{data}' needs the file images/.*: set STUDIO_DATA"):
        task_stream(data, "vgg", "silu", "average", 100, 10, 0)


def test_a_stream_moves_as_one():
    stream = digits()
    moved = stream.to(torch.device("meta"))
    assert moved.titles == stream.titles and moved.name == "digits" and len(moved.tasks) == 5
    assert {task.batch(0)[0].device.type for task in moved.tasks} == {"meta"}
    assert {task.test_labels.device.type for task in stream.tasks} == {"cpu"}
