"""Every broken or hostile network file is refused in one short sentence, soon, with nothing run and little memory."""

import json
import re
import resource
import time
from dataclasses import dataclass

import pytest
import torch
from nets.broken_networks import MARKER, SHAPE, broken_files, given, sound_files, taken

from studio.nets.network_files import load_network, read_network
from studio.nets.trial import trial

EXAMPLE = torch.linspace(-1, 1, 2 * 192).view(2, *SHAPE)


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


@pytest.fixture(scope="module")
def files():
    return broken_files()


@pytest.fixture(scope="module")
def refusals(files):
    MARKER.unlink(missing_ok=True)
    return [tried(name, data) for name, data in files]


def test_there_are_hundreds_and_no_two_alike(files):
    assert len(files) >= 300
    assert len({data for _, data in files}) == len(files) == len({name for name, _ in files})


def test_every_one_is_refused_in_a_short_sentence(refusals):
    for each in refusals:
        assert each.words, f"{each.name} was taken"
        assert len(each.words) < 300 and each.words.isprintable(), each
        assert re.search(r"[:,] ", each.words) and not re.search('Traceback|File "|While executing', each.words), each


def test_nothing_was_run_and_nothing_takes_long(refusals):
    assert not MARKER.exists()
    slow = [each for each in refusals if each.seconds > 5]
    assert not slow, slow
