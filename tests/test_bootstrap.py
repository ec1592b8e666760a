"""The bootstrap script and the wheel: what a stranger's machine meets first."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
START = "import studio; from studio.surfaces.cli import main; print(studio.__file__); raise SystemExit(main())"


@pytest.fixture(scope="module")
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_needs_only_the_standard_library(bootstrap):
    names = {name.split(".")[0] for name in bootstrap.__dict__ if not name.startswith("_")}
    assert names and "torch" not in names
    told = subprocess.run([sys.executable, "-S", ROOT / "run.py", "--help"], capture_output=True, text=True, check=True)
    assert "app | test | check | bench" in told.stdout


def test_an_unknown_job_is_refused():
    told = subprocess.run([sys.executable, ROOT / "run.py", "fly"], capture_output=True, text=True)
    assert told.returncode == 2 and "usage" in told.stdout


def test_local_wheels_reach_uv(bootstrap, monkeypatch):
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", "somewhere")
    assert bootstrap.uv_environment()["UV_FIND_LINKS"] == "somewhere"
    monkeypatch.setenv("UV_FIND_LINKS", "mine")
    assert bootstrap.uv_environment()["UV_FIND_LINKS"] == "mine"


def test_an_up_to_date_environment_is_left_alone(bootstrap, monkeypatch, tmp_path):
    stamp = tmp_path / "stamp"
    stamp.write_text(f"{bootstrap.fingerprint()} all notebook test")
    monkeypatch.setattr(bootstrap, "STAMP", stamp)
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda *_, **__: pytest.fail("nothing is to be installed"))
    assert bootstrap.set_up("all,test") and bootstrap.set_up("notebook")


def test_a_failed_installation_is_not_stamped(bootstrap, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda *_, **__: 1)
    assert not bootstrap.set_up("notebook")
    assert not (tmp_path / "stamp").exists() and "same command again" in capsys.readouterr().out


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel built from this checkout, unpacked as an installer would."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        wheel.extractall(out / "site")
    return out / "site"


def test_the_wheel_carries_assets_and_apps(unpacked):
    for name in ("py.typed", "files/cards.toml", "assets/NOTICE.md", "apps/gallery.py", "apps/fusedream.py"):
        assert (unpacked / "studio" / name).is_file(), name
    for part in ("decoder", "clip", "judge"):
        assert list((unpacked / "studio/assets/embedded" / part).glob("*.safetensors")), part
    size = sum(path.stat().st_size for path in (unpacked / "studio/assets").rglob("*") if path.is_file())
    assert size <= 30 * 2**20


def test_the_wheel_dreams_offline_from_another_folder(unpacked, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(unpacked), "HF_HUB_OFFLINE": "1"}
    command = ["run", "fusedream", "--prompt", "a red apple on a blue background", "--steps", "2", "--copies", "2"]
    told = subprocess.run(
        [sys.executable, "-c", START, *command, "--out", str(tmp_path / "apple.png")],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert str(unpacked) in told.stdout and (tmp_path / "apple.png").read_bytes()[:4] == b"\x89PNG"
