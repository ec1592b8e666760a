"""Set the studio up and do one job: `python run.py [app | test | check | bench]`, with nothing but Python 3.11.

Makes .venv beside this file on the first call (and again when the requirements change), then runs the job in it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HOME = ROOT / ".venv"
BIN = HOME / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = HOME / "studio-stamp"
CONTRACTS = "from importlinter.cli import lint_imports_command as check; check()"
JOBS = {
    "app": [["-m", "studio", "open"]],
    "test": [["-m", "pytest"]],
    "check": [
        ["-m", "ruff", "check"],
        ["-m", "ruff", "format", "--check"],
        ["-m", "pyright"],
        ["-c", CONTRACTS],
    ],
    "bench": [["-m", "benchmarks"]],
}


def main() -> int:
    """Set up what is missing and return the job's exit status."""
    job, *rest = sys.argv[1:] or ["app"]
    if job in ("-h", "--help") or job not in JOBS:
        print(f"usage: python run.py [{' | '.join(JOBS)}] [arguments of the job]")
        return 0 if job in ("-h", "--help") else 2
    if sys.version_info < (3, 11):
        print("the studio needs Python 3.11 or newer; this is " + sys.version.split()[0])
        return 1
    extras = "all" if job == "app" else "all,test"
    if not set_up(extras):
        return 1
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    for command in JOBS[job]:
        status = subprocess.call([PYTHON, *command, *rest], cwd=ROOT, env=environment)
        if status:
            return status
    return 0


def set_up(extras: str) -> bool:
    """Install the studio with `extras` into .venv unless the stamp says so already; return whether it worked."""
    wanted = fingerprint()
    have = STAMP.read_text().split() if STAMP.exists() else []
    if have[:1] == [wanted] and set(extras.split(",")) <= set(have[1:]):
        return True
    kept = set(have[1:]) if have[:1] == [wanted] else set()
    names = sorted(kept | set(extras.split(",")) | ({"notebook"} if "all" in extras else set()))
    if not PYTHON.exists():
        print("making .venv ...", flush=True)
        shutil.rmtree(HOME, ignore_errors=True)
        venv.create(HOME, with_pip=True)
    print("installing what the studio needs (the first time takes minutes) ...", flush=True)
    for command in install_commands(",".join(names)):
        if subprocess.call(command, cwd=ROOT, env=uv_environment()):
            print("the installation failed; the lines above say why. Mend that and run the same command again.")
            return False
    STAMP.write_text(" ".join([wanted, *names]))
    return True


def install_commands(names: str) -> list[list[str]]:
    """Return the commands that install the studio: uv into .venv, which is quick, then everything else through it."""
    target = ["-c", "constraints.txt", "-e", f".[{names}]"]
    return [
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"],
        [str(PYTHON), "-m", "uv", "pip", "install", "--quiet", "--python", str(PYTHON), *target],
    ]


def uv_environment() -> dict[str, str]:
    """Return the environment with pip's folder of local wheels made known to uv, which does not read pip's."""
    links = {} if "UV_FIND_LINKS" in os.environ else {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
    return os.environ | {name: value for name, value in links.items() if value}


def fingerprint() -> str:
    """Return a digest of the requirements; when it changes the environment is brought up to date."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
