"""The command line: the same bytes for the same seed, clean refusals, clean stops."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from studio.catalog import CATALOG
from studio.core.controls import controls
from studio.files.archive import png_recipe
from studio.nets.network_files import save_network
from studio.studies.prune import Prune
from studio.surfaces import cli_runs
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
        ([*QUICK, "--out", "a.txt"], "must end in .png, .gif"),
        (["replay", "nothing"], "no run begins with 'nothing'"),
        (["stop", "../../etc"], "no run begins with"),
        (["open", "--limit", "steps"], "NAME=NUMBER"),
        (["open", "--auth", "name"], "NAME:PASSWORD"),
        (["open", "--host", "0.0.0.0"], "--exposed"),
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


def test_a_run_is_kept_listed_replayed_exported_and_deleted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, "--seed", "77"]) == 0
    assert main(["runs", "landscapes", "77"]) == 0
    run = capsys.readouterr().out.splitlines()[-1].split()[0]
    assert main(["replay", run]) == 0 and "the bytes agree at step 5" in capsys.readouterr().out
    for kind in ("csv", "html", "py", "glb"):
        assert main(["export", run, "--to", kind, "--out", f"a.{kind}"]) == 0
    assert main(["export", run]) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".html", ".py", ".glb", ".png"}
    assert main(["export", run, "--to", "sdf"]) == 1 and "molecules" in capsys.readouterr().err
    assert main(["resume", run]) == 1 and "reached its end" in capsys.readouterr().err
    assert main(["delete", run]) == 0 and main(["watch", run]) == 1


def test_a_run_handed_in_apart_is_watched_stopped_and_gone_on_with(capsys):
    assert main(["run", "landscapes", "--steps", "2000", "--points", "200", "--detach"]) == 0
    run = capsys.readouterr().out.split()[-1]
    assert main(["stop", run]) == 0 and "what it found is kept" in capsys.readouterr().out
    assert main(["delete", run]) == 0


def test_a_run_is_taken_back_to_a_step_and_gone_on_with(capsys):
    assert main([*QUICK, "--seed", "78"]) == 0
    whole = capsys.readouterr().out.splitlines()[-1]
    assert main(["undo", "last", "--step", "3"]) == 0 and "stopped at step 3 of 5" in capsys.readouterr().out
    assert main(["resume", "last"]) == 0 and capsys.readouterr().out.splitlines()[-1] == whole
    for step in (0, 5, -1, 99):
        wrong = main(["undo", "last", "--step", str(step)])
        assert wrong == 1 and "step must be between 3 and 4" in capsys.readouterr().err


def test_a_file_that_cannot_be_opened_is_refused_in_one_sentence(tmp_path, capsys):
    other = tmp_path / "a.safetensors"
    for data, words in ((None, "cannot be read"), (b"no network", "safetensors"), (b"PK\x03\x04" + bytes(9), "pickle")):
        if data is not None:
            other.write_bytes(data)
        assert main(["run", "prune", "--open", str(other)]) == 1
        said = capsys.readouterr().err
        assert words in said and len(said.splitlines()) == 1


def test_knobs_of_a_file_are_taken_where_nothing_else_was_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("studio.files.networks.user_cache", lambda: tmp_path)
    path = tmp_path / "a.safetensors"
    save_network(path, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Linear(8, 10)))
    given = {control.name: control.default for control in controls(Prune)}
    knobs = cli_runs._opened(Prune, path, given | {"macs": 0.7, "training": 5})
    assert knobs["network"] == "file" and len(knobs["file"]) == 64
    assert (knobs["macs"], knobs["training"], knobs["after"]) == (0.7, 5, given["after"])
