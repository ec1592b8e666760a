"""Every broken or hostile network file is refused in one short sentence, soon, with nothing run and little memory."""

import json
import re
import resource
import time
from dataclasses import dataclass

import pytest
import torch
from nets.broken_networks import MARKER, SHAPE, broken_files, given, sound_files, taken
from torch import nn

from studio.nets.network_files import load_network, read_network
from studio.nets.trial import trial

EXAMPLE = torch.linspace(-1, 1, 2 * 192).view(2, *SHAPE)
# What the sentences must say, by what the names of the files begin with.
REASONS = {
    "pickle [2-5]|torch.save": "is a pickle.*studio export",
    "bomb 100,000|bomb empty lists": "too many things",
    "bomb 20,001": "at most 20,000 tensors",
    "bomb (lists|objects|closed lists)": "too deep",
    "bomb spaces": "header of 16.2 MB",
    ".*(nan|inf) in ": "NaN or infinite",
    "setting .*(0|9|None|3)$": "beyond all bounds|can be made|fit|cannot be run",
    "node .*(EVIL|os)": "not one of those|no name|bound",
    "blow-up (interpolate|times|cat|index|kept)": "million entries",
    "blow-up (pow|tower|repeat|word|sizes)": "without tensors",
    "blow-up (pool|largest|matmul)": "billion products",
    "blow-up (pieces|chunks)": "too many pieces",
    "blow-up batch": "faster than the batch",
    "blow-up": "^(?!.*before it is made)",
}


@dataclass(frozen=True)
class Refusal:
    """What a file was refused with, and after how many seconds; empty words where it was not."""

    name: str
    words: str
    seconds: float


def tried(name, data):
    begin, words = time.perf_counter(), ""
    try:
        trial(read_network(data, "dropped.safetensors")[0], EXAMPLE, 4)
    except ValueError as error:
        words = str(error)
    return Refusal(name, words, time.perf_counter() - begin)


def peak():
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


@pytest.fixture(scope="module")
def files():
    return broken_files()


@pytest.fixture(scope="module")
def refusals(files):
    MARKER.unlink(missing_ok=True)
    before = peak()
    made = [tried(name, data) for name, data in files]
    assert peak() - before < 500
    return made


def test_there_are_hundreds_and_no_two_alike(files):
    assert len(files) >= 300
    assert len({data for _, data in files}) == len(files) == len({name for name, _ in files})


def test_every_one_is_refused_in_a_short_sentence(refusals):
    for each in refusals:
        assert each.words, f"{each.name} was taken"
        assert len(each.words) < 300 and each.words.isprintable() and ": " in each.words, each
        assert not re.search(r"Traceback|File \"|While executing|unpack|Error:", each.words), each


@pytest.mark.parametrize("names", REASONS)
def test_it_is_refused_for_the_right_reason(refusals, names):
    found = [each for each in refusals if re.match(names, each.name)]
    assert found
    for each in found:
        assert re.search(REASONS[names], each.words), each


def test_nothing_was_run_and_nothing_takes_long(refusals):
    assert not MARKER.exists()
    assert [each for each in refusals if each.seconds > 5] == []


def test_the_sound_files_are_taken_from_bytes_as_from_a_path(tmp_path):
    for name, data in sound_files():
        (tmp_path / name).write_bytes(data)
        network, edits = read_network(data)
        loaded, log = load_network(tmp_path / name)
        output = trial(network, EXAMPLE, 4)
        assert torch.equal(output, loaded(EXAMPLE)) and torch.equal(trial(network, EXAMPLE[:1])[0], output[0])
        assert [edit.index for edit in edits] == [edit.index for edit in log] and bool(edits) == (name == "grown")
        with pytest.raises(ValueError, match=r"its output must be \(2, 5\)"):
            trial(network, EXAMPLE, 5)


def test_a_file_that_begins_like_a_pickle_is_none():
    header, body = taken(sound_files()[0][1])
    text = json.dumps(header)
    for length in (0x8080, 0x0480 + 0x10000, 0x0280 + 0x10000):
        data = given(text + " " * (length - len(text)), body)
        assert data[:1] == b"\x80"
        assert torch.equal(trial(read_network(data)[0], EXAMPLE), trial(read_network(sound_files()[0][1])[0], EXAMPLE))


class Ruled(nn.Module):
    """What a function makes of the input."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, x):
        return self.rule(x)


@pytest.mark.parametrize(
    "rule, words",
    [
        (lambda x: x.flatten(1).view(2, -1), "batches of two only|cannot be run"),
        (lambda x: x, "its output must be"),
        (lambda x: (x.flatten(1), x), "no tensor"),
        (lambda x: x.flatten(1) / 0.0, "NaN or infinite"),
        (lambda x: x.flatten(1) if x.sum() > 0 else x, "cannot be followed"),
    ],
)
def test_a_trial_says_what_is_wrong(rule, words):
    with pytest.raises(ValueError, match=words):
        trial(Ruled(rule), EXAMPLE)


def test_a_trial_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(), nn.Linear(192, 4)).train()
    weights, example = network[3].weight.clone(), EXAMPLE.clone()
    assert trial(network, example).shape == (2, 4)
    assert network.training and network[2].training and torch.equal(network[3].weight, weights)
    assert network[3].weight.requires_grad and torch.equal(example, EXAMPLE)
