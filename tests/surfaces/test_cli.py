"""The command line: the same bytes for the same seed, clean refusals, clean stops."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.catalog import CATALOG
from studio.files.archive import png_recipe
from studio.surfaces.cli import main

QUICK = ["run", "landscapes", "--steps", "5", "--points", "4"]


def test_run_saves_the_same_bytes_for_the_same_seed(tmp_path, capsys):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main([*QUICK, "--seed", seed, "--out", str(tmp_path / f"{name}.png")]) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
    recipe = png_recipe(a)
    assert recipe.study == "landscapes" and recipe.knobs["seed"] == 3 and recipe.knobs["steps"] == 5
    assert "mean loss" in capsys.readouterr().out


def test_curves_as_csv(tmp_path):
    assert main([*QUICK, "--out", str(tmp_path / "a.csv")]) == 0
    with (tmp_path / "a.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if (row["curve"], row["series"]) == ("Loss", "mean")]
    assert len(rows) == 6 and float(rows[0]["y"]) > float(rows[-1]["y"]) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*QUICK, "--points", "0"], "points must be between"),
        ([*QUICK, "--out", "a.gif"], "must end in .png or .csv"),
        ([*QUICK, "--out", "nowhere/a.png"], "a folder that is not there"),
        (["weights", "verify", "nothing"], "nothing"),
    ],
)
def test_a_wrong_wish_gets_one_sentence(arguments, words, capsys):
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told and told.count("\n") <= 2


def test_list_and_cite_name_every_study(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    for study in CATALOG:
        assert f"{study.name} " in listed
        assert main(["cite", study.name]) == 0
        assert study.papers[0].arxiv in capsys.readouterr().out


def test_doctor_and_weights_list(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "torch" in told and "device" in told and str(Path.home()) not in told
    assert main(["weights", "list"]) == 0
    told = capsys.readouterr().out
    assert "biggan-deep-128" in told and "embedded" in told


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
def test_ctrl_c_keeps_the_best_and_leaves_no_traceback(tmp_path):
    out = tmp_path / "a.png"
    knobs = ["--method", "plain", "--steps", "2000", "--points", "200"]
    command = [sys.executable, "-m", "studio", "run", "landscapes", *knobs]
    with subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while process.poll() is None and b"plain" not in process.stderr.read1(4096):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=60)
    assert b"Traceback" not in told
    assert process.returncode == 130
    assert png_recipe(out.read_bytes()).study == "landscapes"
    assert b"best so far kept" in said
