"""Tracing changes the class of all modules while it lasts: other threads must not notice, and may trace too."""

import threading

import torch
from networks import conv, pictures, settled
from torch import nn

from studio.nets.spaces import trace
from studio.nets.tracing import graph_of


class Slow(nn.Module):
    """A network whose tracing lasts until another thread has done its work."""

    def __init__(self, before, after):
        super().__init__()
        self.before, self.after, self.layer = before, after, nn.Linear(3, 3)

    def forward(self, x):
        made = self.layer(x)
        self.before.set()
        assert self.after.wait(20)
        return self.layer(made)


def test_other_threads_use_their_networks_while_one_is_traced():
    before, after, errors = threading.Event(), threading.Event(), []
    other = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def work():
        before.wait(20)
        try:
            assert other(torch.ones(2, 4)).shape == (2, 4)
            assert isinstance(other[0].weight, nn.Parameter)
        except Exception as error:
            errors.append(error)
        after.set()

    thread = threading.Thread(target=work)
    thread.start()
    graph = graph_of(Slow(before, after))
    thread.join()
    assert not errors
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]


def test_many_threads_may_trace():
    errors, found = [], []

    def work(seed):
        network = settled(nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5), nn.Flatten(), nn.Linear(320, 4)), seed)
        try:
            found.extend(trace(network, pictures(2)).widths for _ in range(5))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and found == [(4, 5)] * 30
