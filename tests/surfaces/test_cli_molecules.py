"""A file of molecules in the terminal: whatever stops it, the bytes come out as if nothing had."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pytest
from filelock import FileLock

from studio.catalog import CATALOG
from studio.core.controls import Knob, Range, Words
from studio.core.snapshots import Snapshot
from studio.render.molecules_text import sdf_text
from studio.scenes import Molecules
from studio.studies.study import Study
from studio.surfaces import cli_commands, cli_molecules
from studio.surfaces.cli import main

TINY = ["--conformers", "2", "--steps", "2", "--rounds", "60"]
MIXED = (
    "CCO ethanol\r\n"
    "COCCO\tglycol <b>ether</b> \x1b[31mred\x07 $$$$ \u202ex\n"
    "\n"
    "# a comment\n"
    "C(C broken\n"
    "[Na+].CC(=O)[O-] salt\n"
    "OB(O)c1ccccc1 boronic\n"
    f"{'C' * 500} chain\n"
    "CO"
)


@dataclass(frozen=True)
class Beads(Study):
    """A string of atoms, one a letter, that is drawn at once; some letters make trouble."""

    name: ClassVar[str] = "beads"
    title: ClassVar[str] = "Beads"
    summary: ClassVar[str] = "One atom a letter."
    papers: ClassVar = ()
    molecule: Annotated[str, Words(200_000), Knob("Molecule")] = "C"
    seconds: Annotated[float, Range(1.0, 600.0), Knob("Clock")] = 30.0

    def run(self, start=None):
        """Yield a step, and the end; `S` never ends, `X` is no molecule, `Z` is an error of the program."""
        if self.molecule.startswith("X"):
            raise ValueError("X is no molecule:\n\x1b[31m give another")
        if self.molecule.startswith("Z"):
            raise ZeroDivisionError("deep inside")
        yield Snapshot(step=0, total=1, phase="")
        while self.molecule.startswith("S"):
            time.sleep(0.05)
            yield Snapshot(step=0, total=1, phase="")
        yield Snapshot(step=1, total=1, phase="", outcome="done")

    def view(self, snapshot):
        """Return two conformers that depend on the text and the seed."""
        letters, _, title = self.molecule.partition(" ")
        n = len(letters)
        positions = np.random.default_rng([self.seed, *self.molecule.encode()]).normal(size=(2, n, 3))
        bonds = np.array([(i, i + 1) for i in range(n - 1)], dtype=np.int64).reshape(-1, 2)
        return (
            Molecules(
                title=title, smiles=letters, symbols=("C",) * n, charges=np.zeros(n, dtype=np.int64), bonds=bonds,
                orders=np.ones(n - 1), positions=positions, energies=np.array([0.0, 1.0]), groups=np.array([0, 1]),
                captions=("", ""), path=np.zeros((0, 2, n, 3)), field="none", lowest=-1.0,
            ),
        )  # fmt: skip

    @classmethod
    def tiny(cls):
        """Return the beads as they are."""
        return cls()


@pytest.fixture
def beads(monkeypatch, tmp_path):
    """Give what runs beads on a text and returns the exit status; files lie in the folder it works in."""
    monkeypatch.setattr(cli_commands, "CATALOG", (*CATALOG, Beads))
    monkeypatch.chdir(tmp_path)

    def run(text, *more, out="out.sdf"):
        (tmp_path / "in.smi").write_text(text, encoding="utf-8")
        return main(["run", "beads", "--smiles-file", "in.smi", "--out", out, *more])

    return run


def lines(count, prefix="C"):
    return "".join(f"{prefix}{'C' * (number % 7)} name{number}\n" for number in range(count))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def broken_off(monkeypatch, after):
    """Let Ctrl-C come in the middle of molecule number `after` + 1."""
    real, calls = Beads.run, iter(range(10**6))

    def run(self, start=None):
        if next(calls) == after:
            raise KeyboardInterrupt
        yield from real(self)

    monkeypatch.setattr(Beads, "run", run)
    return real


def test_every_line_of_a_mixed_file_is_done_or_says_why(tmp_path, capsys):
    source, out = tmp_path / "in.smi", tmp_path / "out.sdf"
    source.write_text(MIXED, encoding="utf-8", newline="")
    command = ["run", "conformers", *TINY, "--smiles-file", str(source), "--out", str(out)]
    assert main([*command, "--field", "MMFF94"]) == 1
    said, told = capsys.readouterr()
    for number, words in ((5, "never closed"), (7, "MMFF94 has no parameters"), (8, "500 atoms")):
        assert f"line {number}: " in told and words in told
    assert "Traceback" not in told and "4 done, 3 failed" in said
    text = out.read_text(encoding="utf-8")
    assert not any(letter in text for letter in "\x1b\x07\u202e\r") and text.count("\n$$$$\n") == 8
    records = text.split("$$$$\n")[:-1]
    titles = [record.split("\n", 1)[0] for record in records]
    assert titles[0] == "ethanol, conformer 1" and titles[2].startswith("glycol <b>ether</b> [31mred $ x")
    assert ["CC(=O)[O-]" in record for record in records] == [title.startswith("salt") for title in titles]
    assert all("> <FORCE_FIELD>\nMMFF94\n" in record for record in records)
    failed = (tmp_path / "out.sdf.failed.smi").read_text().splitlines()
    assert failed[1] == "C(C\tbroken" and failed[0].startswith("# line 5: this is not a SMILES")
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi", "out.sdf", "out.sdf.failed.smi"}

    again = ["--smiles-file", str(tmp_path / "out.sdf.failed.smi"), "--out", str(tmp_path / "again.xyz")]
    assert main(["run", "conformers", *TINY, *again, "--field", "UFF"]) == 1
    assert "1 done, 2 failed" in capsys.readouterr().out and "OB(O)c1ccccc1" in (tmp_path / "again.xyz").read_text()


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
def test_a_killed_process_is_gone_on_with_to_the_same_bytes(tmp_path, capsys):
    source, whole, out = tmp_path / "in.smi", tmp_path / "whole.sdf", tmp_path / "out.sdf"
    source.write_text("CO one\nX none\nCCO two\nCCC three\nCOC four\nCF five\nCCF six\n")
    command = ["run", "conformers", *TINY, "--smiles-file", str(source), "--out"]
    journal = tmp_path / "out.sdf.part.jsonl"
    with subprocess.Popen([sys.executable, "-m", "studio", *command, str(out)], stderr=subprocess.DEVNULL) as child:
        while child.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
            time.sleep(0.01)
        child.kill()
    assert child.returncode == -signal.SIGKILL and not out.exists()
    with (tmp_path / "out.sdf.part").open("ab") as stream:
        stream.write(b"half a molecule\n  studio")
    with journal.open("ab") as stream:
        stream.write(b'{"end": 12')
    assert main([*command, str(whole)]) == main([*command, str(out)]) == 1
    assert digest(out) == digest(whole) and out.read_text().count("$$$$") >= 6
    assert digest(tmp_path / "out.sdf.failed.smi") == digest(tmp_path / "whole.sdf.failed.smi")
    assert "going on behind" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_whole_and_says_how_to_go_on(beads, tmp_path, capsys, monkeypatch):
    text = lines(3) + "X bad\n" + lines(4)
    assert beads(text, out="whole.sdf") == 1
    real = broken_off(monkeypatch, 5)
    assert beads(text) == 130
    assert "stopped: 4 done, 1 failed, kept in out.sdf.part; the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "out.sdf.part").read_text().count("$$$$") == 8 and not (tmp_path / "out.sdf").exists()
    monkeypatch.setattr(Beads, "run", real)
    assert beads(text) == 1
    assert "going on behind 5 that were kept: 4 done, 1 failed" in capsys.readouterr().err
    assert digest(tmp_path / "out.sdf") == digest(tmp_path / "whole.sdf")
    assert digest(tmp_path / "out.sdf.failed.smi") == digest(tmp_path / "whole.sdf.failed.smi")
    assert not list(tmp_path.glob("*part*"))


def test_wherever_the_files_are_cut_the_bytes_come_out_the_same(beads, tmp_path, capsys, monkeypatch):
    text = lines(3) + "X bad\n" + lines(3)
    assert beads(text, out="whole.sdf") == 1
    real = broken_off(monkeypatch, 6)
    assert beads(text) == 130
    monkeypatch.setattr(Beads, "run", real)
    part, journal = tmp_path / "out.sdf.part", tmp_path / "out.sdf.part.jsonl"
    records, diary = part.read_bytes(), journal.read_bytes()
    header, chosen = diary.index(b"\n") + 1, random.Random(3)
    for _ in range(25):
        damaged = bytearray(records[: chosen.randint(0, len(records))])
        if chosen.random() < 0.3 and damaged:
            damaged[-chosen.randint(1, min(99, len(damaged))) :] = bytes(chosen.randint(0, 300))
        part.write_bytes(damaged)
        journal.write_bytes(diary[: chosen.randint(header, len(diary))] + bytes(chosen.choice((0, 0, 50))))
        assert beads(text, "--patience", "120") == 1
        assert digest(tmp_path / "out.sdf") == digest(tmp_path / "whole.sdf")
        (tmp_path / "out.sdf").unlink()
    capsys.readouterr()


def test_killed_between_the_last_two_steps_the_result_stands(beads, tmp_path, capsys, monkeypatch):
    broken_off(monkeypatch, 1)
    assert beads(lines(2)) == 130
    (tmp_path / "out.sdf.part").rename(tmp_path / "out.sdf")
    before = digest(tmp_path / "out.sdf")
    assert beads(lines(2)) == 2 and "out.sdf is there already" in capsys.readouterr().err
    assert digest(tmp_path / "out.sdf") == before and not list(tmp_path.glob("*part*"))


def test_another_recipe_or_input_is_not_mixed_in(beads, tmp_path, capsys, monkeypatch):
    real = broken_off(monkeypatch, 2)
    assert beads(lines(4)) == 130
    monkeypatch.setattr(Beads, "run", real)
    kept = digest(tmp_path / "out.sdf.part")
    for text, more, words in (
        (lines(4), ["--seed", "8"], "begun with seed 7 (now 8)"),
        (lines(4), ["--patience", "9"], "begun with patience 120.0 (now 9.0)"),
        (lines(4, "N"), [], "differs at line 1"),
        (lines(1), [], "is shorter"),
    ):
        assert beads(text, *more) == 2
        told = capsys.readouterr().err
        assert words in told and "--fresh" in told and digest(tmp_path / "out.sdf.part") == kept
    assert beads(lines(4, "N"), "--seed", "8", "--fresh") == 0
    first = digest(tmp_path / "out.sdf")
    assert beads(lines(4)) == 2 and "there already" in capsys.readouterr().err
    assert digest(tmp_path / "out.sdf") == first
    broken_off(monkeypatch, 2)
    assert beads(lines(4), "--fresh") == 130 and "without --fresh goes on" in capsys.readouterr().err
    assert digest(tmp_path / "out.sdf") == first
    assert beads(lines(4)) == 0 and digest(tmp_path / "out.sdf") != first


def test_records_without_their_journal_are_left_alone(beads, tmp_path, capsys):
    (tmp_path / "out.sdf.part").write_text("of somebody")
    assert beads(lines(2)) == 2 and "without its journal" in capsys.readouterr().err
    (tmp_path / "out.sdf.part.jsonl").write_text("nonsense\n")
    assert beads(lines(2)) == 2 and "damaged" in capsys.readouterr().err
    assert (tmp_path / "out.sdf.part").read_text() == "of somebody"
    assert beads(lines(2), "--fresh") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["landscapes", "--smiles-file", "in.smi", "--out", "a.sdf"], "landscapes takes none"),
        (["conformers", "--smiles-file", "in.smi"], "--out that ends in .sdf or .xyz"),
        (["conformers", "--smiles-file", "in.smi", "--out", "a.png"], "--out that ends in .sdf or .xyz"),
        (["conformers", "--smiles-file", "in.smi", "--out", "nowhere/a.sdf"], "a folder that is not there"),
        (["conformers", "--smiles-file", "none.smi", "--out", "a.sdf"], "a file that is not there"),
        (["conformers", "--smiles-file", "in.pdb", "--out", "a.sdf"], "must end in .smi"),
        (["conformers", "--smiles-file", "empty.smi", "--out", "a.sdf"], "no molecule in the input"),
        (["conformers", "--smiles-file", "a.sdf", "--out", "a.sdf"], "belongs to --out"),
        (["conformers", "--smiles-file", "in.smi", "--out", "a.sdf", "--detach"], "--detach"),
        (["conformers", "--smiles-file", "in.smi", "--out", "a.sdf", "--molecule", "CC"], "give one of them"),
        (["conformers", "--smiles-file", "in.smi", "--out", "a.sdf", "--patience", "nan"], "--patience must be"),
        (["conformers", "--smiles-file", "in.smi", "--out", "a.sdf", "--conformers", "0"], "conformers must be"),
    ],
)
def test_misuse_gets_one_sentence_and_leaves_nothing(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.smi").write_text("CO\n")
    (tmp_path / "empty.smi").write_text("# nothing\n\n")
    there = {*tmp_path.iterdir()}
    if "belongs" in words:
        (tmp_path / "a.sdf").write_text("")
        there.add(tmp_path / "a.sdf")
    assert main(["run", *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told and told.count("\n") == 1
    assert {*tmp_path.iterdir()} == there


def test_clock_and_file_need_one_another(capsys):
    assert main(["run", "conformers", "--patience", "3", "--detach"]) == 1
    assert "--smiles-file" in capsys.readouterr().err


def test_one_that_hangs_or_breaks_is_listed_and_the_rest_goes_on(beads, tmp_path, capsys):
    assert beads("C a\nS slow\nZ wrong\nX none\nCC b\n", "--patience", "1") == 1
    failed = (tmp_path / "out.sdf.failed.smi").read_text()
    assert "# line 2: it was not done after 1 s" in failed and "ZeroDivisionError: deep inside" in failed
    assert "# line 4: X is no molecule: [31m give another\nX\tnone\n" in failed and "\x1b" not in failed
    assert "2 done, 3 failed" in capsys.readouterr().out
    assert beads("C a\n", "--fresh") == 0 and not (tmp_path / "out.sdf.failed.smi").exists()


def test_records_of_an_sdf_and_lines_of_standard_input(beads, tmp_path, capsys, monkeypatch):
    scene = Beads(molecule="CC first").view(None)[0]
    damaged = "broken <i>\n\n\n  1  0\nM  END\n$$$$\n"
    (tmp_path / "two.sd").write_text(sdf_text(scene) + damaged, encoding="utf-8")
    assert main(["run", "conformers", *TINY, "--smiles-file", "two.sd", "--out", "a.sdf"]) == 1
    assert (tmp_path / "a.sdf.failed.smi").read_text().startswith("# record 3 (broken <i>): this mol block cannot")
    assert (tmp_path / "a.sdf").read_text().startswith("first, conformer 1, conformer 1\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"CC a\xff\nCCC b"), encoding="utf-8"))
    assert main(["run", "beads", "--smiles-file", "-", "--out", "b.sdf"]) == 0
    assert beads("CC a\ufffd\nCCC b", out="c.sdf") == 0 and digest(tmp_path / "b.sdf") == digest(tmp_path / "c.sdf")
    capsys.readouterr()


def test_two_processes_do_not_write_one_file(beads, tmp_path, capsys):
    with FileLock(tmp_path / "out.sdf.part.lock"):
        assert beads(lines(2)) == 2
    assert "another run is writing out.sdf" in capsys.readouterr().err


def test_without_a_terminal_a_line_now_and_then(beads, capsys, monkeypatch):
    monkeypatch.setattr(cli_molecules, "EVERY", 0.0)
    assert beads("C a\nX b\nCC c\n") == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and told[1].startswith("line 2: ")
    assert told[2].startswith("1 done, 1 failed of 3, ") and told[2].endswith(" left")
    assert "\r" not in "".join(told)


def test_memory_does_not_grow_with_the_number_of_molecules(beads, tmp_path, capsys):
    peaks = []
    for count in (60, 240):
        tracemalloc.start()
        assert beads(lines(count) + "C" * 10**6 + " long", out=f"{count}.sdf") in (0, 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert (tmp_path / "240.sdf").stat().st_size > 3 * (tmp_path / "60.sdf").stat().st_size
    capsys.readouterr()


def test_the_journal_tells_what_became_of_each(beads, tmp_path, monkeypatch, capsys):
    broken_off(monkeypatch, 2)
    assert beads("C a\nX b\nCC c\n") == 130
    header, first, second = (json.loads(line) for line in (tmp_path / "out.sdf.part.jsonl").read_text().splitlines())
    recipe = json.loads(header["recipe"])
    assert recipe["knobs"]["seed"] == 7 and {"torch", "rdkit", "device", "patience"} <= {*recipe["knobs"]}
    assert "molecule" not in recipe["knobs"] and recipe["study"] == "beads"
    assert first["reason"] == "" and second["where"] == "line 2" and second["end"] == first["end"] > 0
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
def test_fifty_molecules_killed_three_times(tmp_path):
    source, whole, out = tmp_path / "in.smi", tmp_path / "whole.sdf", tmp_path / "out.sdf"
    source.write_text("".join(f"{'C' * (1 + n % 6)}{'O' if n % 2 else 'N'} name{n}\n" for n in range(50)))
    command = ["run", "conformers", *TINY, "--smiles-file", str(source), "--out"]
    assert main([*command, str(whole)]) == 0
    journal = tmp_path / "out.sdf.part.jsonl"
    for most in (8, 21, 40):
        with subprocess.Popen([sys.executable, "-m", "studio", *command, str(out)], stderr=subprocess.DEVNULL) as child:
            while child.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > most):
                time.sleep(0.01)
            child.kill()
        assert child.returncode == -signal.SIGKILL and not out.exists()
    assert main([*command, str(out)]) == 0
    assert digest(out) == digest(whole)
