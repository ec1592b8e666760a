"""RDKit in a child: the same answers, a clock, and a sentence instead of a crash."""

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from problems.odd_molecules import BLOCK, DRUGS
from problems.test_chemistry import same

from benchmarks.molecules_hostile import hostile
from studio.problems import chemistry
from studio.problems.chemist import Chemist
from studio.problems.chemist_frames import HEAD, FrameError, frame_bytes, read_frame
from studio.problems.mmff_terms import MMFFTerms, mmff_terms

# A child whose reading does odd things: sleep, crash, print, use memory, or fail in unusual ways.
ODD = """
import ctypes, os, signal, sys, time
import studio.problems.chemist as chemist
def read(text, max_heavy):
    if text == "sleep":
        time.sleep(60)
    if text == "spin":
        ctypes.PyDLL(None).sleep(60)
    if text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if text == "leave":
        os._exit(3)
    if text == "odd":
        raise RuntimeError("secret details")
    if text == "memory":
        return bytearray(8 * 2**30)
    if text == "object":
        return object()
    if text == "large":
        return "x" * 9 * 2**20
    if text == "print":
        os.write(1, b"noise"); print("noise", flush=True); sys.stdin.read()
    if text == "pid":
        return os.getpid()
    return chemist.chemistry.read_molecule(text, max_heavy)
chemist.OPERATIONS["read"] = read
chemist.serve()
"""


@pytest.fixture(scope="module")
def chemist():
    with Chemist() as found:
        yield found


@pytest.fixture(scope="module")
def odd():
    with Chemist((sys.executable, "-c", ODD)) as found:
        yield found


def pid_of(chemist):
    """Return the number of the child's process, as the child says it."""
    return chemist._ask("read", ("pid", 150), 10.0)


def alive(pid):
    """Whether a process still runs; one that ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ended(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize("text", [*DRUGS, BLOCK, "[H]/N=C/C", "C", "OB(O)c1ccccc1 a title", "CC(F)Cl"])
def test_a_molecule_comes_through_unchanged(chemist, text):
    assert same(chemist.read(text), chemistry.read_molecule(text))


def test_every_answer_is_that_of_the_same_function_here(chemist):
    found = chemist.read("CC(=O)Oc1ccccc1C(=O)O")
    start = chemist.embed(found, 4, seed=2)
    assert start.tobytes() == chemistry.embed(found, 4, seed=2).tobytes()
    relaxed, reached, rested = chemist.minimise(found, start, "MMFF94s")
    here = chemistry.minimise(found, start, "MMFF94s")
    assert np.array_equal(relaxed, here[0]) and np.array_equal(reached, here[1]) and np.array_equal(rested, here[2])
    assert np.array_equal(chemist.energies(found, start, "UFF"), chemistry.energies(found, start, "UFF"))
    assert np.array_equal(chemist.rmsd_matrix(found, relaxed), chemistry.rmsd_matrix(found, relaxed))
    terms, ours = chemist.terms(found, "MMFF94"), mmff_terms(chemistry.rdkit_mol(found), "MMFF94")
    assert isinstance(terms, MMFFTerms)
    for name in MMFFTerms.__dataclass_fields__:
        assert np.array_equal(getattr(terms, name), getattr(ours, name)), name
    assert chemist.starts == 1


def test_sentences_come_through_unchanged(chemist):
    for text in ("C1CC", "", "*", "C" * 500, "C\0", "C\ud800", "x" * 500_000):
        with pytest.raises(ValueError) as there:
            chemist.read(text)
        with pytest.raises(ValueError) as here:
            chemistry.read_molecule(text)
        assert str(there.value) == str(here.value)
    boron = chemist.read("OB(O)C")
    with pytest.raises(ValueError, match="UFF"):
        chemist.terms(boron)
    with pytest.raises(ValueError, match="seconds"):
        chemist.read("C", seconds=0)


@pytest.mark.parametrize("text", ["sleep", "spin"])
def test_a_child_that_hangs_is_replaced(odd, text):
    odd.read("C")
    before, began, spent = odd.starts, time.monotonic(), odd.cpu_seconds
    with pytest.raises(ValueError, match=r"RDKit did not finish within 0.5 s \(read\): give a smaller molecule"):
        odd.read(text, seconds=0.5)
    assert time.monotonic() - began < 5
    assert odd.cpu_seconds >= spent + 0.5
    assert odd.read("CCO").smiles == "CCO" and odd.starts == before + 1


def test_a_child_that_crashes_is_replaced(odd):
    for text, code in (("crash", -signal.SIGSEGV), ("leave", 3)):
        with pytest.raises(ValueError, match=rf"RDKit crashed on this molecule \(read, exit {code}\)"):
            odd.read(text)
        assert odd.read("CCO").smiles == "CCO"


def test_a_child_that_was_killed_between_calls_is_replaced(odd):
    os.kill(pid_of(odd), signal.SIGKILL)
    time.sleep(0.2)
    assert odd.read("CCO").smiles == "CCO"


@pytest.mark.parametrize(
    ("text", "words"),
    [("odd", r"could not read this molecule \(RuntimeError\)"), ("memory", "memory"), ("large", "too much"),
     ("object", "cannot be sent")],
)  # fmt: skip
def test_errors_of_any_kind_are_sentences(odd, text, words):
    odd.read("C")
    before = odd.starts
    with pytest.raises(ValueError, match=words) as caught:
        odd.read(text)
    assert "secret" not in str(caught.value)
    assert odd.read("CCO").smiles == "CCO" and odd.starts == before


def test_prints_do_not_reach_the_answers(odd):
    with pytest.raises(ValueError, match="'p'|'r'"):
        odd.read("print")
    assert odd.read("CCO").smiles == "CCO"


def test_calls_from_many_threads_wait_for_one_another(chemist):
    found, texts = {}, [*DRUGS[:8], "C1CC", "*"]

    def ask(text):
        try:
            found[text] = chemist.read(text).smiles
        except ValueError as error:
            found[text] = str(error)

    threads = [threading.Thread(target=ask, args=(text,), daemon=True) for text in texts * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(found[text] == chemistry.read_molecule(text).smiles for text in texts[:8])
    assert "ring" in found["C1CC"] and "any atom" in found["*"]


def test_a_child_outlives_the_thread_that_started_it():
    with Chemist() as found:
        thread = threading.Thread(target=found.read, args=("C",))
        thread.start()
        thread.join()
        assert found.read("CC").smiles == "CC" and found.starts == 1


def test_closing_ends_the_child_and_a_later_call_starts_another():
    found = Chemist((sys.executable, "-c", ODD))
    pid = pid_of(found)
    spent = found.cpu_seconds
    assert spent > 0
    found.close()
    found.close()
    assert ended(pid) and found.cpu_seconds >= spent
    assert found.read("C").smiles == "C"
    found.close()


@pytest.mark.parametrize("busy", ["", "sleep", "spin"])
def test_a_child_ends_with_its_parent(busy):
    parent = f"""
import sys, threading, time
sys.path[:0] = {sys.path!r}
from studio.problems.chemist import Chemist
found = Chemist((sys.executable, "-c", {ODD!r}))
print(found.read("pid"), flush=True)
if {busy!r}:
    found.read({busy!r}, seconds=1)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        pid = int(process.stdout.readline())
        assert alive(pid)
        time.sleep(0.5)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert ended(pid)


def test_a_child_that_does_not_start_gets_a_sentence():
    with (
        Chemist((sys.executable, "-c", "raise SystemExit(1)")) as found,
        pytest.raises(ValueError, match="process for RDKit did not start"),
    ):
        found.read("C")


@pytest.mark.slow
def test_hostile_molecules_are_all_answered():
    figures = hostile(200, seed=7)
    assert figures["hostile_failures"] == 0 and figures["hostile_slowest_s"] < 10
    assert figures["hostile_molecules"] > 20 and figures["hostile_refused"] > 20


def test_values_come_through_a_frame():
    value = (1, -2.5, "é\ud800", None, True, b"\0bytes", np.zeros((0, 4), dtype=np.int64), np.eye(3), (), np.float64(2))
    found = read_frame(io.BytesIO(frame_bytes(value)))
    assert found[:6] == value[:6] and found[8:] == ((), 2.0)
    assert found[6].shape == (0, 4) and found[6].dtype == np.int64 and np.array_equal(found[7], np.eye(3))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0", HEAD.pack(10, 0), HEAD.pack(2**31, 0) + b"x", HEAD.pack(0, 2**31), HEAD.pack(2, 0) + b"{]",
     HEAD.pack(2, 0) + b"{}", HEAD.pack(12, 0) + b'{"array": 0}', HEAD.pack(27, 0) + b'{"record": "x", "parts": 1}',
     HEAD.pack(40_000, 0) + b"[" * 40_000, struct.pack(">II", 2, 0) + b"\xff\xfe"],
    ids=lambda data: ascii(data[:12]),
)  # fmt: skip
def test_damaged_frames_are_refused(data):
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(data))


def test_objects_never_come_through_a_frame():
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([{}], dtype=object), allow_pickle=True)
    text = b'{"array": 0}'
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(HEAD.pack(len(text), len(stream.getvalue())) + text + stream.getvalue()))
    with pytest.raises(TypeError, match="cannot be sent"):
        frame_bytes(np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="too much"):
        frame_bytes(tuple(np.zeros(1) for _ in range(300)))
